"""LiteLLM's proxy and Portkey's gateway: installed into a cache at pinned versions, started with their leanest settings."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from tests.bench.plan import say
from tests.bench.wrk import CACHE
from tests.house import ROOT

_HERE: Final = Path(__file__).resolve().parent
_UV: Final = ROOT / ".venv" / "bin" / "uv"
_INSTALL_DEADLINE_S: Final = 600.0
# LiteLLM imports for many seconds.
_READY_DEADLINE_S: Final = 180.0
_STOP_DEADLINE_S: Final = 10.0
_LITELLM_KEY: Final = "sk-measured-0123456789abcdef"
_LITELLM_CONFIG: Final = """\
model_list:
  - model_name: measured-chat
    litellm_params: {{model: openai/gpt-4o, api_base: "{upstream}/v1", api_key: "sk-upstream"}}
  - model_name: measured-image
    litellm_params: {{model: openai/dall-e-3, api_base: "{upstream}/v1", api_key: "sk-upstream"}}
    model_info: {{mode: image_generation}}
general_settings: {{master_key: os.environ/LITELLM_MASTER_KEY}}
litellm_settings: {{telemetry: false}}
"""


class Unavailable(Exception):
    """A peer that cannot be installed or started here, and exactly why."""


@dataclass(frozen=True)
class Gateway:
    """A running peer: where it is asked, and with which headers and model names."""

    name: str
    base_url: str
    pid: int
    headers: Mapping[str, str]
    chat_model: str
    image_model: str


@asynccontextmanager
async def litellm(folder: Path, upstream: str) -> AsyncIterator[Gateway]:
    """One worker with a master key and no database. Raises Unavailable."""
    place = CACHE / "litellm"
    program = place / "bin" / "litellm"
    if not program.exists():
        say("installing LiteLLM's proxy")
        await _installed([str(_UV), "venv", "-q", "--clear", str(place)], place)
        lock = str(_HERE / "litellm.lock")
        python = str(place / "bin" / "python")
        await _installed(
            [str(_UV), "pip", "install", "-q", "--python", python, "--require-hashes", "-r", lock], place
        )
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM_CONFIG.format(upstream=upstream), encoding="utf-8")
    port = _free_port()
    command = [
        str(program),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    # Its list of prices would be fetched at the start otherwise.
    environ = {
        "LITELLM_MASTER_KEY": _LITELLM_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    headers = {"Authorization": f"Bearer {_LITELLM_KEY}"}
    async with _running(command, environ, folder / "litellm.log", port, "/health/liveliness") as pid:
        base_url = f"http://127.0.0.1:{port}"
        yield Gateway("LiteLLM", base_url, pid, headers, "measured-chat", "measured-image")


@asynccontextmanager
async def portkey(folder: Path, upstream: str) -> AsyncIterator[Gateway]:
    """Without its web console. Raises Unavailable."""
    place = CACHE / "portkey"
    program = place / "node_modules/@portkey-ai/gateway/build/start-server.js"
    if not program.exists():
        say("installing Portkey's gateway")
        shutil.copytree(_HERE / "portkey", place, dirs_exist_ok=True)
        await _installed(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place)
    port = _free_port()
    headers = {
        "Authorization": "Bearer sk-upstream",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream}/v1",
    }
    command = ["node", str(program), "--headless", f"--port={port}"]
    async with _running(command, {"NODE_ENV": "production"}, folder / "portkey.log", port, "/") as pid:
        yield Gateway("Portkey", f"http://127.0.0.1:{port}", pid, headers, "gpt-4o", "dall-e-3")


async def _installed(command: list[str], place: Path) -> None:
    name = Path(command[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=place if place.is_dir() else ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise Unavailable(f"`{name}` is not installed") from None
    try:
        said = (await asyncio.wait_for(process.communicate(), _INSTALL_DEADLINE_S))[0].decode(
            errors="replace"
        )
    except TimeoutError:
        process.kill()
        raise Unavailable(f"`{name} {command[1]}` did not end in {_INSTALL_DEADLINE_S:.0f} s") from None
    if process.returncode:
        words = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"`{name} {command[1]}` failed: {words[0]}")


@asynccontextmanager
async def _running(
    command: list[str], environ: Mapping[str, str], log: Path, port: int, health: str
) -> AsyncIterator[int]:
    try:
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=log.parent, env={**os.environ, **environ}, stdout=file, stderr=file
            )
    except FileNotFoundError:
        raise Unavailable(f"`{Path(command[0]).name}` is not installed") from None
    try:
        await _healthy(process, f"http://127.0.0.1:{port}{health}", log)
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_DEADLINE_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _healthy(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    async with aiohttp.ClientSession() as session:
        try:
            async with asyncio.timeout(_READY_DEADLINE_S):
                while process.returncode is None:
                    if await _answers(session, url):
                        return
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise Unavailable(f"it was not ready after {_READY_DEADLINE_S:.0f} s") from None
    words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise Unavailable(f"it ended while starting: {words[0]}")


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            return answer.status < 500
    except (aiohttp.ClientError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
