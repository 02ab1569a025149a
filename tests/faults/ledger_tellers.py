"""Customers of a billing process that dies: they repeat what was not answered, and write down what was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.integration.billing_process import Billing, capture, hold

# Whoever is told one of these was not answered: the operation may have been done or not.
UNANSWERED = {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.ABORTED, Kind.CANCELLED, Kind.RESOURCE_EXHAUSTED}
PAUSE_S = 0.02
CALL_TIMEOUT_S = 8.0
SHORT_TTL_MS = 300
LONG_TTL_MS = 600_000
PRICE_MILLIS = 20_000

HOLD, CAPTURE, RELEASE, TOP_UP, ADJUST = "Hold", "Capture", "Release", "TopUp", "Adjust"


@dataclass(frozen=True)
class Answer:
    """What was asked, and what came back: a message, or the reason and the numbers of a refusal."""

    method: str
    request: Any
    message: Message | None
    reason: str = ""
    numbers: Mapping[str, str] = field(default_factory=dict)

    @property
    def replayed(self) -> bool:
        return bool(getattr(self.message, "replayed", False))

    def content(self) -> object:
        """What must be the same in every answer under one key."""
        if self.message is None:
            # A map of protobuf comes in any order.
            return self.reason, tuple(sorted(self.numbers.items()))
        return _first_time(self.message).SerializeToString(deterministic=True)


def _first_time(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("replayed")
    return copy


@dataclass
class Branch:
    """The process as its customers see it: sometimes there, sometimes somewhere else."""

    billing: Billing | None = None
    log: list[Answer] = field(default_factory=list)
    # What was sent at least once, answered or not.
    sent: list[tuple[str, Any]] = field(default_factory=list)
    repeats: int = 0
    unexpected: list[ServiceError] = field(default_factory=list)

    async def ask(self, method: str, request: Any) -> Answer:
        """Ask until there is an answer, always with the same request."""
        self.sent.append((method, request))
        while True:
            try:
                return self._told(method, request, await self._call(method, request))
            except ServiceError as refusal:
                if refusal.kind not in UNANSWERED:
                    return self._told(method, request, None, refusal)
            except asyncio.CancelledError:
                # gRPC says so too when the channel of a dead process is closed; our own task was not cancelled then.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            self.repeats += 1
            await asyncio.sleep(PAUSE_S)

    async def _call(self, method: str, request: Any) -> Message:
        while self.billing is None:
            await asyncio.sleep(PAUSE_S)
        message: Message = await getattr(self.billing.stub, method)(request, timeout=CALL_TIMEOUT_S)
        return message

    def _told(
        self, method: str, request: Any, message: Message | None, refusal: ServiceError | None = None
    ) -> Answer:
        if refusal is not None and refusal.kind is Kind.INTERNAL:
            self.unexpected.append(refusal)
        reason, numbers = (refusal.reason, refusal.metadata) if refusal else ("", {})
        self.log.append(Answer(method, request, message, reason, numbers))
        return self.log[-1]


@dataclass
class Teller:
    """One customer after the other, as long as the branch is open. What he does follows from his seed alone."""

    branch: Branch
    wallets: Sequence[str]
    name: str
    seed: int
    closing: asyncio.Event

    async def work(self) -> None:
        chance = random.Random(self.seed)
        turn = 0
        while not self.closing.is_set():
            turn += 1
            await self._serve(chance, f"{self.name}.{turn}", chance.choice(self.wallets))

    async def _serve(self, chance: random.Random, job_id: str, wallet: str) -> None:
        what = chance.random()
        if what < 0.08:
            await self._grant(chance, job_id, wallet)
            return
        ttl_ms = SHORT_TTL_MS if what < 0.2 else LONG_TTL_MS
        held = await self._ask(chance, HOLD, hold(wallet, job_id, quantity=1, ttl_ms=ttl_ms))
        if held.message is None:
            return
        amount = chance.choice([PRICE_MILLIS, PRICE_MILLIS // 2, 0])
        ends = [
            (CAPTURE, capture(wallet, job_id, amount)),
            (RELEASE, pb.ReleaseRequest(customer_id=wallet, mode=pb.MODE_LIVE, job_id=job_id)),
        ]
        end = chance.random()
        if end < 0.1:
            # Nobody ends it: it expires, or stays open.
            return
        if end < 0.25:
            # At once: one of them wins, and stays the winner in every repeat.
            await asyncio.gather(*(self._ask(chance, *each) for each in ends))
        else:
            await self._ask(chance, *ends[end > 0.8])

    async def _grant(self, chance: random.Random, key: str, wallet: str) -> None:
        fields: dict[str, Any] = {"customer_id": wallet, "mode": pb.MODE_LIVE, "idempotency_key": key}
        if chance.random() < 0.5:
            request: Any = pb.TopUpRequest(amount_millis=chance.randint(1, 90_000), **fields)
            await self._ask(chance, TOP_UP, request)
        else:
            amount = chance.choice([-70_000, -1, 1, 5_000])
            await self._ask(chance, ADJUST, pb.AdjustRequest(amount_millis=amount, **fields))

    async def _ask(self, chance: random.Random, method: str, request: Any) -> Answer:
        # Now and then twice at once, as a client does that lost patience.
        copies = 2 if chance.random() < 0.15 else 1
        answers = await asyncio.gather(*(self.branch.ask(method, request) for _ in range(copies)))
        return answers[0]
