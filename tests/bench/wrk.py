"""The load generator: wrk, found on the machine or unpacked from the distribution's package into .venv."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.plan import say
from tests.house import ROOT

# Gone with `make clean`, as everything is that a command of this Makefile has fetched.
CACHE: Final = ROOT / ".venv" / "bench"
# wrk runs its scripts on LuaJIT, which nobody has for another reason.
_PACKAGES: Final = ("wrk", "libluajit-5.1-2")
# Longer than any answer that is still worth measuring.
_TIMEOUT_S: Final = 20
# The thread's number keeps the keys of two threads apart, the run's word those of two slices.
_SCRIPT: Final = """
local requests, run, sent = %s, "", 0
-- Global, because that is where thread:set puts it; a local one would hide it, and threads would share keys.
thread_number = 0
local threads = 0
function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end
function init(args)
  run = args[1] .. "-" .. thread_number .. "-"
end
function request()
  local chosen = requests[sent %% #requests + 1]
  sent = sent + 1
  if chosen.keyed then chosen.headers["Idempotency-Key"] = run .. sent end
  return wrk.format(chosen.method, chosen.path, chosen.headers, chosen.body)
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %%d, "duration_us": %%d, "p50_us": %%f, "p90_us": %%f, "p99_us": %%f, "max_us": %%f, '
    .. '"bad": %%d, "broken": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency.max, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Request:
    """What is sent again and again. keyed: with an idempotency key of its own every time."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str = ""
    keyed: bool = False

    def lua(self) -> str:
        headers = ", ".join(
            f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in self.headers.items()
        )
        return (
            f"{{method = {json.dumps(self.method)}, path = {json.dumps(self.path)}, headers = {{{headers}}}, "
            f"body = {json.dumps(self.body) if self.body else 'nil'}, keyed = {str(self.keyed).lower()}}}"
        )


@dataclass(frozen=True)
class Load:
    """What one run of the load generator saw."""

    requests: int
    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    longest_ms: float

    def __str__(self) -> str:
        return f"{self.per_s:,.0f}/s, p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"


class Wrk:
    """A load generator that is ready to be started."""

    def __init__(self, program: Path, libraries: Path | None) -> None:
        self._program = program
        self._environment = dict(os.environ)
        if libraries is not None:
            self._environment["LD_LIBRARY_PATH"] = str(libraries)

    async def version(self) -> str:
        process = await asyncio.create_subprocess_exec(
            self._program, "-v", stdout=asyncio.subprocess.PIPE, env=self._environment
        )
        text = (await process.communicate())[0].decode()
        return text.split(" Copyright")[0].strip() or "wrk"

    async def run(self, script: Path, base: str, *, connections: int, seconds: float) -> Load:
        """Sends as fast as answers come. Raises RuntimeError when any answer is not 2xx or a connection breaks."""
        arguments = [f"-t{min(2, connections)}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        arguments += ["--timeout", str(_TIMEOUT_S), "-s", str(script), base, "--", secrets.token_hex(6)]
        process = await asyncio.create_subprocess_exec(
            self._program, *arguments, stdout=asyncio.subprocess.PIPE, env=self._environment
        )
        try:
            text = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
        return _read(text)


def _read(text: str) -> Load:
    results = [line for line in text.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise RuntimeError(f"the load generator said nothing useful:\n{text}")
    seen: dict[str, Any] = json.loads(results[0].removeprefix("RESULT "))
    if not seen["requests"] or seen["bad"] or seen["broken"]:
        raise RuntimeError(f"the load generator saw failures:\n{text}")
    rate = 1e6 * seen["requests"] / seen["duration_us"]
    times_ms = (seen[name] / 1_000 for name in ("p50_us", "p90_us", "p99_us", "max_us"))
    return Load(seen["requests"], rate, *times_ms)


def write_script(path: Path, requests: Sequence[Request]) -> Path:
    """A wrk script that sends these requests in turn."""
    path.write_text(_SCRIPT % ("{" + ",\n".join(one.lua() for one in requests) + "}"), encoding="utf-8")
    return path


async def load_generator() -> Wrk:
    """wrk, unpacked from the distribution's package when the machine has none. Raises RuntimeError."""
    found = shutil.which("wrk")
    if found:
        return Wrk(Path(found), None)
    unpacked = CACHE / "wrk"
    if not (unpacked / "usr/bin/wrk").exists():
        say(f"wrk is not installed: unpacking the distribution's package into {unpacked}")
        await _unpack(unpacked)
    libraries = next(unpacked.glob("usr/lib/*/libluajit*"), None)
    return Wrk(unpacked / "usr/bin/wrk", libraries.parent if libraries else None)


async def _unpack(target: Path) -> None:
    # Lists and downloads of its own: this needs neither root nor the machine's package lists.
    state = target / "apt"
    for folder in (state / "lists/partial", state / "archives/partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = ["-qq", "-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state}"]
    options += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
    await _done(["apt-get", *options, "update"], state)
    await _done(["apt-get", *options, "download", *_PACKAGES], state)
    for package in state.glob("*.deb"):
        await _done(["dpkg", "-x", str(package), str(target)], state)
    shutil.rmtree(state)


async def _done(command: list[str], folder: Path) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=asyncio.subprocess.DEVNULL
        )
        code = await process.wait()
    except FileNotFoundError:
        code = -1
    if code:
        raise RuntimeError(
            f"wrk is not installed, and {command[0]} could not fetch it; install wrk and try again"
        )
