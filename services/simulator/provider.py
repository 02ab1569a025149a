"""What a simulated provider is, and one request to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol, runtime_checkable

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.drawings import Drawing
from services.simulator.faults import Call, Fault, Hit
from services.simulator.forms import Part, parts_of
from services.simulator.tasks import ENDED, Charge, OverConcurrency, Task
from services.simulator.world import World

# How often a waiting call looks whether its client is still there.
_LOOK_S: Final = 0.25


class Refused(Exception):
    """A request that the provider refuses, with what it answers."""

    def __init__(self, answer: web.Response, reason: str = "request") -> None:
        super().__init__(reason)
        self.answer = answer
        self.reason = reason


class Gone(Exception):
    """The client hung up while its call was under way."""


@dataclass(slots=True)
class Exchange:
    """One request of an account, read whole."""

    world: World
    provider: Provider
    request: web.Request
    body: bytes
    hits: tuple[Hit, ...] = ()
    # Absent on routes that are open to all.
    caller: Account | None = None
    faults: frozenset[Fault] = field(init=False)

    def __post_init__(self) -> None:
        self.faults = frozenset(hit.fault for hit in self.hits)

    @property
    def account(self) -> Account:
        assert self.caller is not None, "an open route asks for an account"
        return self.caller

    @property
    def base_url(self) -> str:
        """Where the simulator was reached: scheme, host and port."""
        return f"{self.request.scheme}://{self.request.host}"

    @property
    def now_ms(self) -> int:
        return self.world.now_ms()

    def json(self) -> Any:
        """The body. Raises ValueError."""
        return json.loads(self.body)

    def form(self) -> list[Part]:
        """The parts of a multipart body. Raises ValueError."""
        return parts_of(self.request.headers.get("Content-Type", ""), self.body)

    def refused(self, fault: Fault, wait_s: float | None = None) -> Refused:
        """The provider's own words for a fault, to be raised."""
        return Refused(self.provider.refusal(fault, wait_s), fault.value)

    def accept(
        self,
        task_id: str,
        *,
        kind: str,
        model: str,
        prompt: str,
        drawings: Sequence[Drawing],
        cost: Decimal,
        charge: Charge,
        facts: dict[str, Any] | None = None,
        output_lifetime_s: float | None = None,
        expires_s: float | None = None,
    ) -> Task:
        """Takes a task on, after everything about the request was checked.

        `cost` is in the provider's unit. Raises Refused: moderated before acceptance, over the account's concurrency.
        """
        if Fault.MODERATED_BEFORE in self.faults:
            raise self.refused(Fault.MODERATED_BEFORE)
        now_ms = self.now_ms
        task = Task(
            id=task_id,
            account=self.account,
            kind=kind,
            model=model,
            prompt=prompt,
            base_url=self.base_url,
            created_ms=now_ms,
            length_ms=self._length_ms(kind),
            cost=cost,
            charge=charge,
            drawings=tuple(drawings),
            faults=self.faults,
            facts=facts or {},
            seed=self.world.chance.randrange(2**31),
            output_lifetime_s=output_lifetime_s,
            expires_ms=None if expires_s is None else now_ms + round(expires_s * 1000),
        )
        try:
            self.world.tasks.accept(task)
        except OverConcurrency:
            raise Refused(self.provider.over_concurrency(self.account), "concurrency") from None
        return task

    async def finished(self, task: Task) -> Task:
        """Returns when the task has ended: how a synchronous provider holds the socket. Raises Gone."""
        while task.state not in ENDED:
            if self.request.transport is None or self.request.transport.is_closing():
                raise Gone
            due_ms = self.world.tasks.next_due_ms()
            wait_s = _LOOK_S if due_ms is None else (due_ms - self.now_ms) / 1000
            await self.world.clock.sleep(min(_LOOK_S, max(0.0, wait_s)))
            self.world.advance()
        return task

    def _length_ms(self, kind: str) -> int:
        for hit in self.hits:
            if hit.fault is Fault.SLOW and hit.value is not None:
                return round(hit.value * 1000)
        return self.world.paced_ms(self.account.latency_of(kind))


Handler = Callable[[Exchange], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call of a provider; `path` begins with its prefix and may hold `{names}` for `request.match_info`."""

    method: str
    path: str
    handler: Handler
    call: Call


class Provider(Protocol):
    """One provider's wire protocol. Everything that all have in common is done around it."""

    @property
    def name(self) -> str:
        """As in `/_control`; also the first part of every path."""
        ...

    @property
    def usual(self) -> Usual:
        """What its accounts are unless they are told otherwise."""
        ...

    def routes(self) -> Sequence[Route]:
        """Every call."""
        ...

    def key_of(self, request: web.Request) -> str:
        """The credential that a request carries; empty without one."""
        ...

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        """A new answer in the provider's words, for one of BEFORE or MODERATED_BEFORE; `wait_s` is for Retry-After."""
        ...

    def over_concurrency(self, account: Account) -> web.Response:
        """What an account with everything under way that it may have is answered."""
        ...

    def not_found(self) -> web.Response:
        """What a path or a method is answered that the provider does not have."""
        ...

    def changed(self, task: Task) -> None:
        """Called whenever the state of one of its tasks has changed: for callbacks."""
        ...


@runtime_checkable
class JudgesKeys(Protocol):
    """A provider that answers not every unknown key alike; the others answer as for `unauthorized`."""

    def unknown_key(self, key: str) -> web.Response:
        """What a credential is answered that belongs to nobody; empty without one."""
        ...


def bearer(request: web.Request, scheme: str = "Bearer") -> str:
    """The credential after `scheme` in the Authorization header."""
    given, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if given.lower() == scheme.lower() else ""
