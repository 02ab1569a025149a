"""The same load on two other gateways, on bare aiohttp and on this house, in one run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.bench.bare import bare_server
from tests.bench.creates import CONNECTIONS, RESTING, creates
from tests.bench.findings import Chart, Finding, Section, of_slices
from tests.bench.peers.gateways import Gateway, Unavailable, litellm, portkey
from tests.bench.plan import Plan, say
from tests.bench.processes import tree_cpu_s, tree_pss_bytes
from tests.bench.scene import scene
from tests.bench.slices import Rounds, alternate
from tests.bench.wrk import Load, Request, Wrk, load_generator, write_script
from tests.house import ROOT

_OURS: Final = "this house, create"
_BARE: Final = "bare aiohttp, 202"
_CHAT: Final = {"messages": [{"role": "user", "content": "cinematic product photo"}]}
_IMAGE: Final = {"prompt": "cinematic product photo", "n": 1, "size": "1024x1024"}
_ASKED: Final = ("images", "chat")
# A peer whose answers take half a second needs some of them in every slice.
_SLICE_S: Final = 6.0
# The first answer loads what the others find loaded.
_FIRST_ANSWER: Final = aiohttp.ClientTimeout(total=60)
_MB: Final = 1_000_000
_WHAT_EACH_DOES: Final = """
What each does for one request:

| | this house, create | LiteLLM's proxy | Portkey's gateway |
|---|---|---|---|
| who may ask | a customer's key, checked against its database (cached for 5 s) | one master key, compared in memory | nobody is asked: it passes the provider's key on |
| money | a hold on the customer's wallet in a ledger | none without its database | none |
| a repeat of the request | answered with the same job, under the idempotency key | asks the provider again | asks the provider again |
| choice of a provider account | a lease, counted against balance and places | its router, in memory | as the headers say |
| what survives a power cut after the answer | the job, the hold and the lease, each synced to disk before the answer | nothing is stored | nothing is stored |
| the provider | is asked after the answer, which is a job's id | is asked before the answer, over HTTP on this machine | is asked before the answer, over HTTP on this machine |
| translation | its public contract to its own | the OpenAI form through LiteLLM's own types | the OpenAI form, nearly as it came |
| processes | gateway, jobs, provider pool, billing | one worker | one |

So the rows are no race between equals: the peers wait for an upstream (a small server on this machine that answers at once,
whose CPU is not counted), this house writes to a disk four times and calls three services. They show what a
request costs a person who runs one of the three.
"""


@dataclass(frozen=True)
class Seen:
    """One slice: the load, and the CPU of the process (and its children) that served it."""

    load: Load
    cpu_ms: float

    def __str__(self) -> str:
        return f"{self.load}, CPU ms each {self.cpu_ms:.3f}"


async def measure(plan: Plan) -> list[Section]:
    """Whatever can be installed and started here; of the rest, why not."""
    wrk = await load_generator()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(_upstream())
        found, missing = await _gateways(stack, plan.folder, upstream)
        bare = await stack.enter_async_context(bare_server())
        place = await stack.enter_async_context(scene(plan.folder, "SQLite", environment=RESTING))
        script = write_script(plan.folder / "create.lua", creates(place.keys))
        roots = {_BARE: bare.pid, _OURS: place.house.process.pid}
        cases: dict[str, Callable[[], Awaitable[Seen]]] = {
            _BARE: partial(_slice, wrk, plan, script, bare.base_url, bare.pid),
            _OURS: partial(_slice, wrk, plan, script, place.house.base_url, place.house.process.pid),
        }
        for peer in found:
            for what in _ASKED:
                name = f"{peer.name}, {what}"
                written = write_script(plan.folder / f"{peer.name}-{what}.lua", [_request(peer, what)])
                cases[name] = partial(_slice, wrk, plan, written, peer.base_url, peer.pid)
                roots[name] = peer.pid
        rounds = await alternate(cases, plan)
        memory = {name: tree_pss_bytes(pid) / _MB for name, pid in roots.items()}
    return [_section(rounds, memory, missing)]


async def _gateways(stack: AsyncExitStack, folder: Path, upstream: str) -> tuple[list[Gateway], list[str]]:
    found, missing = [], []
    for name, opened in (("LiteLLM's proxy", litellm), ("Portkey's gateway", portkey)):
        try:
            peer = await stack.enter_async_context(opened(folder, upstream))
            for what in _ASKED:
                await _answers(peer, _request(peer, what))
            found.append(peer)
        except Unavailable as why:
            say(f"{name} is not measured: {why}")
            missing.append(f"{name} was not measured: {why}.")
    return found, missing


async def _answers(peer: Gateway, request: Request) -> None:
    """Raises Unavailable unless the peer serves this request."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_FIRST_ANSWER) as session,
            session.post(peer.base_url + request.path, data=request.body, headers=request.headers) as answer,
        ):
            said = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as why:
        raise Unavailable(f"it did not answer {request.path}: {why!r}") from why
    if answer.status != 200:
        raise Unavailable(f"it answered {request.path} with {answer.status}: {said[:200]}")


def _request(peer: Gateway, what: str) -> Request:
    body: dict[str, Any]
    if what == "chat":
        path, body = "/v1/chat/completions", {"model": peer.chat_model, **_CHAT}
    else:
        path, body = "/v1/images/generations", {"model": peer.image_model, **_IMAGE}
    return Request("POST", path, {**peer.headers, "Content-Type": "application/json"}, json.dumps(body))


async def _slice(wrk: Wrk, plan: Plan, script: Path, base: str, root: int) -> Seen:
    before_s = tree_cpu_s(root)
    load = await wrk.run(script, base, connections=CONNECTIONS, seconds=max(_SLICE_S, plan.seconds))
    return Seen(load, 1_000 * (tree_cpu_s(root) - before_s) / max(1, load.requests))


def _section(rounds: Rounds[Seen], memory: dict[str, float], missing: list[str]) -> Section:
    findings: list[Finding] = []
    lines = [
        "| case | a second | of bare | p50 ms | p99 ms | CPU ms | memory MB |",
        "|---|---|---|---|---|---|---|",
    ]
    rates = {name: rounds.median(name, lambda seen: seen.load.per_s) for name in rounds.slices}
    for name, rate in rates.items():
        p50, p99, cpu = (
            rounds.median(name, number)
            for number in (
                lambda seen: seen.load.p50_ms,
                lambda seen: seen.load.p99_ms,
                lambda seen: seen.cpu_ms,
            )
        )
        lines.append(
            f"| {name} | {rate:,.0f} | {rate / rates[_BARE]:.3f} | {p50:.1f} | {p99:.1f} | {cpu:.3f} | {memory[name]:.0f} |"
        )
        if name not in (_BARE, _OURS):
            ratios = rounds.ratios(_OURS, name, lambda seen: seen.load.per_s)
            findings.append(of_slices(f"durable creates of this house against {name}", ratios, "×"))
    text = "\n\n".join([*missing, "\n".join(lines), _WHAT_EACH_DOES.strip(), rounds.trust()])
    chart = Chart("peers", "Requests a second, 64 connections", "/s", list(rates.items()))
    return Section("Peers", tuple(findings), text, (chart,))


@asynccontextmanager
async def _upstream() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.peers.upstream", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
