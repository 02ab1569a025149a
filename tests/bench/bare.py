"""The baseline: aiohttp on uvloop that decodes the same body and answers 202 at once, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import uvloop
from aiohttp import web

from tests.house import ROOT


class _Body(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]
    quality: Literal["LOW", "MEDIUM"] = "LOW"
    size: Literal["16:9_SMALL", "1:1_SMALL", "2:3_SMALL", "9:16_SMALL"] = "1:1_SMALL"


_DECODER = msgspec.json.Decoder(_Body)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True)
class Bare:
    """The running baseline."""

    base_url: str
    pid: int


async def _create(request: web.Request) -> web.Response:
    _DECODER.decode(await request.read())
    answer = {"ok": True, "jobId": "job_0", "status": "processing", "type": "image", "chargedCredits": 20}
    return web.Response(body=_ENCODER.encode(answer), status=202, content_type="application/json")


async def _read(request: web.Request) -> web.Response:
    answer = {"ok": True, "jobId": request.match_info["job_id"], "status": "processing", "type": "image"}
    return web.Response(body=_ENCODER.encode(answer), content_type="application/json")


async def _serve() -> None:
    app = web.Application()
    app.router.add_post("/v1/images/generate", _create)
    app.router.add_get("/v1/jobs/{job_id}", _read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def bare_server() -> AsyncIterator[Bare]:
    """The baseline in a process of its own; ended on the way out."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bare", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Bare(f"http://127.0.0.1:{int(await process.stdout.readline())}", process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(_serve())
