"""Requests a second over HTTP with 64 connections, as a share of a bare aiohttp server's in the same run."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.house import Customer, inside, running_house

_CONNECTIONS = 64
_SLICE_S = 4
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_LATENCY = re.compile(r"\b(50|99)%\s+([\d.]+)(us|ms|s)")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

# Each thread draws its own prefix, so that no two requests of a run share an idempotency key.
_CREATE = """
local n = 0
local prefix = ""
function init(args) math.randomseed(tonumber(args[1]) + tonumber(tostring({{}}):sub(8), 16) % 1000003)
  prefix = args[1] .. "-" .. math.random(1000000000) end
function request()
  n = n + 1
  wrk.headers["Authorization"] = "Bearer {key}"
  wrk.headers["Idempotency-Key"] = prefix .. "-" .. n
  wrk.headers["Content-Type"] = "application/json"
  return wrk.format("POST", "/v1/images/generate",
    nil, '{{"prompt": "cinematic product photo", "quality": "LOW", "size": "16:9_SMALL"}}')
end
"""
_READ = """
function request()
  wrk.headers["Authorization"] = "Bearer {key}"
  return wrk.format("GET", "/v1/jobs/{job_id}")
end
"""
_BARE_SERVER = """
import sys
import msgspec, uvloop
from aiohttp import web
class Body(msgspec.Struct):
    prompt: str
    quality: str
    size: str
decode = msgspec.json.Decoder(Body).decode
encode = msgspec.json.Encoder().encode
async def create(request):
    decode(await request.read())
    return web.Response(body=encode({"ok": True, "jobId": "job_x"}), status=202, content_type="application/json")
async def read(request):
    return web.Response(body=encode({"ok": True, "jobId": "job_x"}), content_type="application/json")
async def main():
    import asyncio
    app = web.Application()
    app.router.add_post("/v1/images/generate", create)
    app.router.add_get("/v1/jobs/{id}", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""


@dataclass(frozen=True)
class Slice:
    """What one run of the load generator saw."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


async def measure(folder: Path, slices: int) -> str:
    """A Markdown table of medians of alternated slices."""
    wrk = await _load_generator()
    async with running_house(folder / "var") as house, inside(house) as services, _bare() as bare_url:
        await services.set_account_options(render="instant", pace_ms="600000")
        await services.set_concurrency(2)
        _, key, _ = await services.customer(
            900_000_000, limits={"queued_jobs": 4_000_000, "running_jobs": 4_000_000}
        )
        async with aiohttp.ClientSession() as session:
            made = await Customer(session, house.base_url, key).image("the-read-one")
        scripts = {
            "create": _script(folder, "create", _CREATE.format(key=key)),
            "read": _script(folder, "read", _READ.format(key=key, job_id=made.json["jobId"])),
        }
        cases = [(what, base) for what in scripts for base in (bare_url, house.base_url)]
        seen: dict[tuple[str, str], list[Slice]] = {case: [] for case in cases}
        for _ in range(slices):
            for what, base in cases:
                seen[what, base].append(await _slice(wrk, scripts[what], base))
    return _report(seen, bare_url, house.base_url)


def _report(seen: dict[tuple[str, str], list[Slice]], bare: str, house: str) -> str:
    lines = [
        f"## Over HTTP, {_CONNECTIONS} connections, SQLite with full sync, load generator on the same cores",
        "",
        "| what | bare aiohttp/s | house/s | share | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    names = {
        "create": "durable create (auth, idempotency, hold, lease, commit)",
        "read": "status read of a running job",
    }
    for what, name in names.items():
        base = statistics.median(one.requests_per_s for one in seen[what, bare])
        mine = statistics.median(one.requests_per_s for one in seen[what, house])
        p50 = statistics.median(one.p50_ms for one in seen[what, house])
        p99 = statistics.median(one.p99_ms for one in seen[what, house])
        lines.append(f"| {name} | {base:,.0f} | {mine:,.0f} | {mine / base:.3f} | {p50:.1f} | {p99:.1f} |")
    return "\n".join(lines)


def _script(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.lua"
    path.write_text(text, encoding="utf-8")
    return path


async def _slice(wrk: str, script: Path, base: str) -> Slice:
    arguments = [wrk, "-t2", f"-c{_CONNECTIONS}", f"-d{_SLICE_S}s", "--latency", "-s", str(script), base]
    process = await asyncio.create_subprocess_exec(
        *arguments, "--", str(secrets.randbelow(10**9)), stdout=asyncio.subprocess.PIPE
    )
    text = (await process.communicate())[0].decode()
    bad = _BAD.search(text)
    if process.returncode or bad:
        raise RuntimeError(f"the load generator saw failures:\n{text}")
    rate = _RATE.search(text)
    latencies = {match[1]: float(match[2]) * _UNITS_MS[match[3]] for match in _LATENCY.finditer(text)}
    if rate is None:
        raise RuntimeError(f"the load generator said nothing useful:\n{text}")
    return Slice(float(rate[1]), latencies["50"], latencies["99"])


@asynccontextmanager
async def _bare() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BARE_SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.terminate()
        await process.wait()


async def _load_generator() -> str:
    found = shutil.which("wrk")
    if found:
        return found
    for command in (("apt-get", "update", "-qq"), ("apt-get", "install", "-y", "-qq", "wrk")):
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError("wrk is not installed, and `apt-get install wrk` failed")
    return "wrk"
