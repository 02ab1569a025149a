"""fal as a provider of the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.fal import errors, outcome
from services.simulator.fal.platform import Platform
from services.simulator.fal.queue import Queue, answer
from services.simulator.fal.signing import SigningKeys
from services.simulator.fal.storage import Storage
from services.simulator.faults import Call, Fault
from services.simulator.provider import Exchange, Route, bearer
from services.simulator.tasks import ENDED, Task
from services.simulator.world import World

# Ten retries over two hours, in seconds at the real pace; and how long a receiver may take.
_RETRIES_S: Final = (10, 30, 60, 120, 300, 600, 900, 1200, 1800, 2160)
_TIMEOUT_S: Final = 15.0


class Fal:
    """Queue, storage and platform of fal.ai, under `/fal/queue`, `/fal/rest`, `/fal/media` and `/fal/api`.

    Options of an account: `scope`, which makes its own key an admin key, or `admin_key`, a second key that is one.
    """

    name = "fal"
    usual = Usual(balance=Decimal(100), concurrency=10, latency_s={"image": 8.0, "video": 60.0})

    def __init__(self, world: World) -> None:
        self._world = world
        self._storage = Storage(world)
        self._queue = Queue(world, self._storage)
        self._platform = Platform(world)
        self._keys = SigningKeys.from_seed(world.seed)
        self._announcing: set[asyncio.Task[None]] = set()

    def routes(self) -> Sequence[Route]:
        """Every call."""
        keys = Route("GET", "/fal/rest/.well-known/jwks.json", self._jwks, Call.OPEN)
        return [keys, *self._queue.routes(), *self._storage.routes(), *self._platform.routes()]

    def key_of(self, request: web.Request) -> str:
        """The key; an admin key stands for the account that names it among its options."""
        if (owner := self._storage.key_of(request)) is not None:
            return owner
        key = bearer(request, "Key")
        if self._world.accounts.find(self.name, key) is None:
            for account in self._world.accounts.all():
                if account.provider == self.name and key and account.options.get("admin_key") == key:
                    return account.key
        return key

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        """In fal's words."""
        if fault in {Fault.RATE_LIMITED, Fault.RATE_LIMITED_WAIT}:
            headers = {} if wait_s is None else {"Retry-After": str(round(wait_s))}
            return answer(errors.request_refused(429, "Too many requests", "rate_limited", **headers))
        return answer(_REFUSALS[fault])

    def over_concurrency(self, account: Account) -> web.Response:
        """Only an account that is told to refuse ever says so: the queue has no end."""
        return self.refusal(Fault.RATE_LIMITED)

    def not_found(self) -> web.Response:
        """A path that leads nowhere."""
        return answer(errors.NO_ENDPOINT)

    def changed(self, task: Task) -> None:
        """Announces the end to the webhook that the submission named."""
        if task.state in ENDED and task.facts["webhook"]:
            announcing = asyncio.get_running_loop().create_task(self._announce(task))
            self._announcing.add(announcing)
            announcing.add_done_callback(self._announcing.discard)

    async def _announce(self, task: Task) -> None:
        body = json.dumps(await outcome.webhook(task, self._world)).encode()

        def sent(_attempt: int) -> tuple[bytes, Mapping[str, str]]:
            moment_s = self._world.now_ms() // 1000
            signed = self._keys.headers(task.id, task.account.user_id, moment_s, body)
            return body, {"Content-Type": "application/json", **signed}

        waits_s = [wait_s / self._world.pace for wait_s in _RETRIES_S]
        self._world.hooks.send(self.name, task.facts["webhook"], sent, waits_s=waits_s, timeout_s=_TIMEOUT_S)

    async def _jwks(self, exchange: Exchange) -> web.Response:
        return web.json_response(self._keys.jwks(), headers={"Cache-Control": "max-age=86400"})


_REFUSALS: Final = {
    Fault.UNAUTHORIZED: errors.UNAUTHORIZED,
    Fault.PAYMENT_REQUIRED: errors.EXHAUSTED,
    Fault.FORBIDDEN: errors.FORBIDDEN,
    Fault.SERVER_ERROR: errors.request_refused(500, "Internal server error", "internal_error"),
    Fault.OVERLOADED: errors.request_refused(500, "Internal server error", "internal_error"),
}
