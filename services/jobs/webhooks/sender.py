"""Sends what is due, many at a time, and writes down what came of it. At least once, under the same id.

A delivery is owned by one worker at a time, as a job is: claimed under an epoch that every later write names, or made
by whoever ends its job, and freed when its worker is declared dead or leaves. What is not being sent is in the
database only.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.egress import Egress
from services.chassis.egress_failures import EgressFailed
from services.chassis.egress_policy import EgressRefused
from services.chassis.errors import ServiceError
from services.chassis.sealing import SealingKeys
from services.chassis.signed_links import SignedLinks
from services.jobs.errors import LeaseLostError
from services.jobs.ownership import Ownership
from services.jobs.schedule import backoff_s
from services.jobs.webhooks import endpoints, measures, schedule, signatures
from services.jobs.webhooks.deliveries import SWEEP_LIMIT, Attempt, Attempted, Delivery, delivery_of
from services.jobs.webhooks.endpoints import Endpoint
from services.jobs.webhooks.forms import with_links
from services.jobs.webhooks.lanes import Blocked, Bounds, Due, Lanes, line_of
from services.jobs.webhooks.outbox import Row
from services.jobs.webhooks.schedule import Answer, State
from services.jobs.webhooks.store import WebhookStore

log = logging.getLogger(__name__)

# One look at the database offers so many; what one line fills of it is passed over in the next.
_PAGE: Final = 256
_PAGES: Final = 16
# Nothing is looked for more often; what ends meanwhile is found together.
_REST_S: Final = 0.01
# Whoever waits no longer than this for the next attempt is waited for; the others are found by looking.
_TIMER_LIMIT_S: Final = 60.0
_LOOK_EVERY_S: Final = 1.0
_TICK_S: Final = 0.1
_SWEEP_EVERY_S: Final = 3600.0
_MEASURE_EVERY_S: Final = 5.0
_USER_AGENT: Final = "Atelier/1 (+webhook)"


@dataclass(frozen=True, slots=True)
class Means:
    """What sending takes."""

    egress: Egress
    keys: SealingKeys
    links: SignedLinks
    timeout_s: float = schedule.TIMEOUT_S
    retries_s: tuple[float, ...] = schedule.RETRIES_S
    bounds: Bounds = field(default_factory=Bounds)


class Sender:
    """Runs until it is cancelled; `stop` lets what is being sent end first."""

    def __init__(self, store: WebhookStore, means: Means, ownership: Ownership, clock: Clock) -> None:
        self._store = store
        self._means = means
        self._ownership = ownership
        self._clock = clock
        self._lanes = Lanes(means.bounds)
        self._awake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._made: list[Delivery] = []
        self._beginning: asyncio.Task[None] | None = None
        self._suspects: set[str] = set()
        self._blocked = Blocked()
        # Places that became free while the last look was under way: it may have passed over who could take them.
        self._freed: list[tuple[Due, bool]] = []
        self._ticks: set[int] = set()
        self._leaving = False

    def wake(self) -> None:
        """There may be something to send."""
        self._awake.set()

    def has_room(self, due: Due) -> bool:
        """Whether what is made now would be sent at once; for any thread."""
        return not self._leaving and self._lanes.has_place(due)

    def made(self, rows: Sequence[Row]) -> None:
        """Deliveries that have just become durable: this worker's own are sent, the others are found by looking."""
        self._made += [delivery_of(row) for row in rows if row["owner"] is not None]
        if self._made and self._beginning is None:
            # What is made in the same turn of the loop begins together.
            self._beginning = asyncio.create_task(self._begin_made(), context=contextvars.Context())
        for row in rows:
            if row["owner"] is None:
                self._look_for(Due(row["delivery_id"], row["customer_id"], row["receiver"]))

    async def run(self) -> None:
        """Sends what is due."""
        while not self._leaving:
            await self._ownership.permission()
            self._awake.clear()
            try:
                await self._take_what_is_due()
            except ServiceError as fault:
                log.warning("webhook.claim_failed", extra={"reason": fault.reason})
            await self._clock.sleep(_REST_S)
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._awake.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Forgets what ended long ago."""
        while True:
            before_ms = self._clock.now_ms() - schedule.RETENTION_MS
            while await self._store.sweep(before_ms) == SWEEP_LIMIT:
                await self._clock.sleep(_REST_S)
            await self._clock.sleep(_SWEEP_EVERY_S)

    async def recall(self) -> None:
        """Frees what this worker owns and does not send, and says how long what is due has been waiting."""
        while True:
            await self._clock.sleep(_MEASURE_EVERY_S)
            worker_id, held = self._ownership.worker_id, self._lanes.held()
            owned = await self._store.owned(worker_id)
            # Neither what ended while that was read, nor what began, nor what was made and is about to begin.
            loose = {
                one: epoch for one, epoch in owned.items() if one not in held and not self._lanes.holds(one)
            }
            strays = {one: epoch for one, epoch in loose.items() if one in self._suspects}
            self._suspects = loose.keys() - strays.keys()
            if strays:
                log.warning("webhook.recalled", extra={"deliveries": len(strays)})
                await self._store.free(worker_id, strays)
                self._awake.set()
            now_ms = self._clock.now_ms()
            oldest_ms = await self._store.oldest_due_ms(now_ms)
            measures.OLDEST_DUE_SECONDS.set((now_ms - oldest_ms) / 1000 if oldest_ms else 0)

    async def stop(self, patience_s: float) -> None:
        """Takes nothing more, lets what is being sent end for `patience_s`, then lets go of it."""
        self._leaving = True
        self._awake.set()
        if self._beginning is not None:
            await asyncio.wait({self._beginning}, timeout=patience_s)
        if self._sending:
            await asyncio.wait(self._sending, timeout=patience_s)
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _take_what_is_due(self) -> None:
        passed_over: set[str] = set()
        self._freed.clear()
        for _ in range(_PAGES):
            if self._leaving or self._lanes.free() <= 0:
                break
            lines = self._lanes.full_lines() | passed_over
            now_ms = self._clock.now_ms()
            page = await self._store.due(now_ms, lines, self._lanes.full_customers(), _PAGE)
            await self._begin(self._lanes.take(page))
            passed_over |= self._lanes.passed_over(page)
            if len(page) < _PAGE:
                break
        # Who was passed over is looked at again as soon as there is a place for it.
        self._blocked = self._lanes.blocked(passed_over)
        if any(self._blocked.waited_for(one, slow=slow) for one, slow in self._freed):
            self._awake.set()

    async def _begin(self, taken: list[Due]) -> None:
        if not taken:
            return
        now_ms = self._clock.now_ms()
        try:
            mine = await self._store.claim(self._ownership.worker_id, taken, now_ms)
            await self._start_all(mine, now_ms)
        except BaseException:
            # What was claimed all the same is freed by `recall`.
            self._give_back(taken, set())
            raise
        self._give_back(taken, {one.delivery_id for one in mine})

    async def _begin_made(self) -> None:
        try:
            while self._made:
                made, self._made = self._made, []
                await self._begin_own({one.delivery_id: one for one in made})
        except ServiceError as fault:
            # `recall` frees them, and then they are found by looking.
            log.warning("webhook.not_begun", extra={"reason": fault.reason})
        finally:
            self._beginning = None

    async def _begin_own(self, made: Mapping[str, Delivery]) -> None:
        dues = [Due(one.delivery_id, one.customer_id, one.receiver) for one in made.values()]
        taken = [] if self._leaving else self._lanes.take(dues)
        mine = [made[one.delivery_id] for one in taken]
        try:
            await self._start_all(mine, self._clock.now_ms())
        except BaseException:
            self._give_back(taken, set())
            raise
        if len(mine) < len(dues):
            # The last place went to another in the same moment.
            begun = {one.delivery_id for one in mine}
            for one in made.values():
                if one.delivery_id not in begun and one.owner is not None:
                    await self._store.free(one.owner, {one.delivery_id: one.epoch})
            self._awake.set()

    async def _start_all(self, mine: Sequence[Delivery], now_ms: int) -> None:
        customers = {one.customer_id for one in mine}
        known = await self._store.with_secrets(self._means.keys, customers, now_ms) if mine else {}
        for delivery in mine:
            self._start(delivery, known[delivery.customer_id])

    def _give_back(self, taken: list[Due], begun: set[str]) -> None:
        for one in taken:
            if one.delivery_id not in begun:
                self._lanes.give_back(one.delivery_id)

    def _start(self, delivery: Delivery, endpoint: Endpoint) -> None:
        # An empty context: it belongs to no one request and to no one's deadline.
        task = asyncio.create_task(
            self._deliver(delivery, endpoint), name=delivery.delivery_id, context=contextvars.Context()
        )
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, delivery: Delivery, endpoint: Endpoint) -> None:
        try:
            attempted = await self._attempt(delivery, endpoint)
            await self._write(attempted)
            self._count(attempted)
        except LeaseLostError:
            log.warning("webhook.lease_lost", extra={"delivery_id": delivery.delivery_id})
        finally:
            one, was_slow = self._lanes.give_back(delivery.delivery_id)
            self._freed.append((one, was_slow))
            if self._blocked.waited_for(one, slow=was_slow):
                self._awake.set()

    async def _attempt(self, delivery: Delivery, endpoint: Endpoint) -> Attempted:
        at_ms, began_s = self._clock.now_ms(), self._clock.monotonic_s()
        try:
            answer = await self._post(delivery, endpoint, at_ms)
        except Exception:
            # A bug, or a secret that does not open, is tried again like everything else.
            log.exception("webhook.stumbled", extra={"delivery_id": delivery.delivery_id})
            answer = Answer(0, "internal")
        took_s = self._clock.monotonic_s() - began_s
        line = line_of(delivery.customer_id, delivery.receiver)
        self._lanes.heard(line, took_s, taken=not answer.error)
        measures.ATTEMPT_SECONDS.observe(took_s)
        now_ms = self._clock.now_ms()
        chance = random.random()  # noqa: S311 - jitter
        after = schedule.verdict(answer, delivery.tries + 1, now_ms, chance, self._means.retries_s)
        return Attempted(
            delivery,
            Attempt(delivery.attempts + 1, at_ms, int(took_s * 1000), answer.status, answer.error),
            after.state,
            after.next_attempt_at_ms,
            0 if after.state is State.WAITING else now_ms,
        )

    async def _post(self, delivery: Delivery, endpoint: Endpoint, at_ms: int) -> Answer:
        form = await self._store.form(delivery.form_id)
        if form is None:
            raise LookupError(f"the form {delivery.form_id} is gone")
        body = with_links(delivery.body, partial(self._link, form.public_url, delivery.links_until_ms))
        headers = {"Content-Type": "application/json", "User-Agent": _USER_AGENT}
        headers |= signatures.headers(
            endpoints.active(self._means.keys, endpoint, at_ms),
            delivery.delivery_id,
            at_ms // 1000,
            body,
            legacy=form.legacy,
            completed=delivery.ending == "completed",
        )
        crash_points.reached("webhook", "post", "before", subject=delivery.job_id)
        try:
            posted = await self._means.egress.post(delivery.url, body, headers, total_s=self._means.timeout_s)
        except EgressRefused:
            return Answer(0, "refused_address")
        except EgressFailed as failed:
            return Answer(0, failed.rule)
        finally:
            crash_points.reached("webhook", "post", "after", subject=delivery.job_id)
        return Answer.of_status(posted.status, posted.retry_after)

    def _link(self, public_url: str, until_ms: int, object_key: str) -> str:
        return self._means.links.link(object_key, until_ms, public_url).url

    async def _write(self, attempted: Attempted) -> None:
        """Waits for a database that is away: until then nobody else sends this delivery."""
        failures = 0
        while True:
            try:
                await self._store.commit(attempted)
                break
            except ServiceError as error:
                if error.reason == "SHUTTING_DOWN":
                    raise
            await self._clock.sleep(backoff_s(failures, random.random()))  # noqa: S311 - jitter
            failures += 1
        wait_s = (attempted.next_attempt_at_ms - self._clock.now_ms()) / 1000
        if attempted.state is State.WAITING and wait_s < _TIMER_LIMIT_S and not self._leaving:
            self._wake_in(max(0.0, wait_s))

    def _look_for(self, one: Due) -> None:
        if self._lanes.has_place(one):
            self._awake.set()
        else:
            self._blocked = self._blocked.with_one(one)

    def _wake_in(self, wait_s: float) -> None:
        """What is due again within one tick is looked for together: a retry has no hurry, and a look costs the others."""
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + wait_s) / _TICK_S)
        if tick not in self._ticks:
            self._ticks.add(tick)
            loop.call_at(tick * _TICK_S, self._ticked, tick)

    def _ticked(self, tick: int) -> None:
        self._ticks.discard(tick)
        self._awake.set()

    def _count(self, attempted: Attempted) -> None:
        delivery, attempt = attempted.delivery, attempted.attempt
        measures.ATTEMPTS.labels(attempt.error or "delivered").inc()
        if attempt.number == 1:
            waited_ms = max(0, attempt.at_ms - delivery.created_at_ms)
            measures.FIRST_ATTEMPT_DELAY_SECONDS.observe(waited_ms / 1000)
        told = {"delivery_id": delivery.delivery_id, "job_id": delivery.job_id, "state": attempted.state}
        log.info("webhook.attempted", extra=told | {"status": attempt.status, "error": attempt.error})
        if attempted.state is State.DEAD:
            measures.DEAD.inc()
            log.warning("webhook.dead", extra=told)
