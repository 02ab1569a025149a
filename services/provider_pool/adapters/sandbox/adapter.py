"""The built-in provider: it takes orders like any other, and draws them on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from services.chassis.errors import Kind as ErrorKind
from services.chassis.errors import ServiceError
from services.chassis.ids import new_id
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Cancellation,
    Context,
    Feature,
    Generation,
    ModelSpec,
    OutputRef,
    Prepared,
    ProviderError,
    ReferenceFile,
    Role,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
    Terms,
)
from services.provider_pool.adapters.sandbox.behaviour import Behaviour, behaviour, complaint
from services.provider_pool.adapters.sandbox.commission import render_order
from services.provider_pool.adapters.sandbox.instant_outputs import instant_content, instant_outputs
from services.provider_pool.adapters.sandbox.models import MODELS
from services.provider_pool.adapters.sandbox.orders import Ending, Order, OrderBook, Upload
from services.provider_pool.adapters.sandbox.render_farm import RenderFarm
from services.provider_pool.adapters.sandbox.render_order import RenderedFile
from services.provider_pool.media.disk_trips import DiskTrips, one_by_one

log = logging.getLogger(__name__)

# A film of the longest length needs seconds; a machine that needs minutes for it has other troubles.
RENDER_DEADLINE_S: Final = 240.0
_RETRY_AFTER_S: Final = 2.0
_CHUNK_BYTES: Final = 256 * 1024
# Jobs of which the sandbox remembers that it has refused them once already.
_REMEMBERED_JOBS: Final = 10_000
# What takes a minute is asked about every two seconds, what takes longer more and more seldom.
_ASK_AGAIN_MS: Final = (100, 2_000, 5_000)
# Drawing that failed for a passing reason is begun again at the next poll.
_PASSING: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.RESOURCE_EXHAUSTED})
_BAD_OUTPUT: Final = b"<!doctype html><title>502 Bad Gateway</title>"


class SandboxAdapter(interface.Adapter):
    """Draws what it is asked for into files in `folder`, in at most `workers` processes."""

    name: ClassVar[str] = "sandbox"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.LIST, Feature.POLL_MANY, Feature.CANCEL})
    # It is on this machine, so its budget is only there to be exercised.
    # An order is in the list before its submission is answered, and no sender starts later than 7.5 s: what is
    # not there after twice that never will be.
    terms: ClassVar[Terms] = Terms(unknown_window_s=15.0, polls_per_second=1000.0, poll_burst=2000)

    def __init__(self, folder: Path, *, workers: int) -> None:
        self._orders = OrderBook(folder)
        # Nothing of it waits for the disk to sync.
        self._small_work: DiskTrips[Callable[[], None], None] = DiskTrips(one_by_one)
        self._farm = RenderFarm(folder / "drawn", workers=workers, deadline_s=RENDER_DEADLINE_S)
        self._drawing: dict[str, asyncio.Task[None]] = {}
        self._failed: OrderedDict[str, str] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()

    def models(self) -> Sequence[ModelSpec]:
        return MODELS

    def complaint(self, options: Mapping[str, str], secrets: Mapping[str, object]) -> str | None:
        return complaint(options)

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        if generation.kind is not spec.kind or not spec.capability.accepts(generation):
            raise interface.InvalidRequest(f"{spec.upstream} cannot make this")
        suits = spec.capability.references.suits
        if len(references) != len(generation.references) or not all(map(suits, references)):
            raise interface.InvalidRequest(
                f"{spec.upstream} needs a file of a fitting size for each reference"
            )
        body = {"model": spec.upstream, "prompt": generation.prompt}
        return Prepared(generation, spec, body, tuple(references))

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        generation = prepared.generation
        fate = behaviour(generation.kind, generation.prompt, account.options, reference)
        self._refuse(fate, account, reference)
        if fate.request_lost:
            raise interface.SubmissionUnknown("the connection broke while the request was sent")
        order = Order(
            task_id=new_id("task"),
            account_id=account.account_id,
            generation=_without_references(generation),
            uploads=_uploads(prepared.references),
            accepted_at_ms=context.clock.now_ms(),
            pace_ms=fate.pace_ms,
            ending=_ending(fate),
            instant=fate.instant,
        )
        # What is not drawn needs no copies: its references are only remembered.
        paths = [file.path for file in prepared.references] if _is_drawn(order) else []
        try:
            if paths:
                await asyncio.to_thread(self._orders.add, order, paths)
            else:
                await self._small_work.run(partial(self._orders.add, order))
        except FileNotFoundError:
            raise interface.InvalidRequest("a reference is gone") from None
        except OSError as error:
            raise interface.TransientFailure("the sandbox could not store the order") from error
        self._draw(order)
        await context.clock.sleep(fate.answer_after_s)
        if fate.answer_lost:
            raise interface.SubmissionUnknown("the connection broke before the answer was read")
        return Submission(_task(order))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        order = await asyncio.to_thread(self._orders.find, account.account_id, task.task_id)
        if order is None:
            raise interface.TaskNotFound("the sandbox knows no such task")
        return self._snapshot(order, context.clock.now_ms())

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        name = account.account_id
        orders = [self._orders.recall(name, task.task_id) for task in tasks]
        strangers = [task.task_id for task, order in zip(tasks, orders, strict=True) if order is None]
        if strangers:
            orders += await asyncio.to_thread(lambda: [self._orders.find(name, one) for one in strangers])
        now_ms = context.clock.now_ms()
        return {order.task_id: self._snapshot(order, now_ms) for order in orders if order is not None}

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        return AccountStatus(ok=True)

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        orders = await asyncio.to_thread(self._orders.since, account.account_id, since_ms)
        asked = _without_references(prepared.generation), _uploads(prepared.references)
        return [_task(order) for order in orders if (order.generation, order.uploads) == asked]

    @contextlib.asynccontextmanager
    async def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        order = self._orders.recall(account.account_id, task.task_id)
        if order is None:
            order = await asyncio.to_thread(self._orders.find, account.account_id, task.task_id)
        if order is None:
            raise interface.OutputUnavailable("the sandbox has forgotten this task")
        if order.ending is Ending.BAD_OUTPUT:
            yield _chunks_of(_BAD_OUTPUT)
        elif order.instant:
            yield _chunks_of(instant_content(order, output.role))
        else:
            yield _chunks_in(Path(output.location))

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        order = await asyncio.to_thread(self._orders.find, account.account_id, task.task_id)
        if order is None:
            return Cancellation("maybe")
        if self._snapshot(order, context.clock.now_ms()).state is TaskState.SUCCEEDED:
            return Cancellation("yes")
        self._farm.cancel(order.task_id)
        if drawing := self._drawing.get(order.task_id):
            await asyncio.wait([drawing])
        await self.forget(context, account, task)
        return Cancellation("no", 0)

    async def forget(self, context: Context, account: AccountAccess, task: TaskRef) -> None:
        await self._small_work.run(partial(self._orders.remove, account.account_id, task.task_id))

    async def tidy(self) -> None:
        await asyncio.to_thread(self._orders.sweep)

    async def close(self) -> None:
        await self._farm.close()
        await asyncio.gather(*self._drawing.values(), return_exceptions=True)

    def _refuse(self, fate: Behaviour, account: AccountAccess, reference: str) -> None:
        job = reference.rpartition(":")[0] or reference
        if fate.refuses:
            raise interface.ContentBlocked("the sandbox was asked to refuse this")
        if fate.rate_limited or (fate.rate_limited_once and self._first_refusal(f"429 {job}", account)):
            raise interface.RateLimited("the sandbox was asked to be busy", retry_after_s=_RETRY_AFTER_S)
        if fate.account_error_once and self._first_refusal(f"402 {job}", account):
            raise interface.InsufficientBalance("the sandbox was asked to be out of credit")

    def _first_refusal(self, what: str, account: AccountAccess) -> bool:
        if what in self._refused:
            return False
        self._refused[what] = account.account_id
        if len(self._refused) > _REMEMBERED_JOBS:
            self._refused.popitem(last=False)
        return True

    def _draw(self, order: Order) -> None:
        if order.outputs or order.task_id in self._drawing or order.task_id in self._failed:
            return
        if _is_drawn(order):
            task = asyncio.create_task(self._drawn(order), name=f"draw {order.task_id}")
            self._drawing[order.task_id] = task
            task.add_done_callback(lambda _: self._drawing.pop(order.task_id, None))

    async def _drawn(self, order: Order) -> None:
        try:
            files = await self._farm.render(render_order(order, self._orders.upload_paths(order)))
        except ServiceError as error:
            if error.kind not in _PASSING:
                self._failed[order.task_id] = error.message
                if len(self._failed) > _REMEMBERED_JOBS:
                    self._failed.popitem(last=False)
            log.warning("sandbox.not_drawn", extra={"task_id": order.task_id, "reason": error.kind.value})
            return
        await asyncio.to_thread(self._orders.finish, order, tuple(map(_output, files)))

    def _snapshot(self, order: Order, now_ms: int) -> Snapshot:
        elapsed_ms = now_ms - order.accepted_at_ms
        if order.ending is Ending.NEVER:
            return _under_way(order, elapsed_ms)
        self._draw(order)
        if elapsed_ms < order.pace_ms:
            return _under_way(order, elapsed_ms)
        if order.ending is Ending.FAILED:
            return _failed("the sandbox was asked to fail")
        if order.task_id in self._failed:
            return _failed(self._failed[order.task_id])
        outputs = instant_outputs(order) if order.instant else order.outputs
        if not outputs:
            return _under_way(order, elapsed_ms)
        return Snapshot(TaskState.SUCCEEDED, progress=100, outputs=outputs)


def _ending(fate: Behaviour) -> Ending:
    if fate.stuck:
        return Ending.NEVER
    if fate.fails:
        return Ending.FAILED
    return Ending.BAD_OUTPUT if fate.bad_output else Ending.WELL


def _is_drawn(order: Order) -> bool:
    return not order.instant and order.ending in (Ending.WELL, Ending.BAD_OUTPUT)


def _task(order: Order) -> TaskRef:
    return TaskRef(order.task_id, order.accepted_at_ms)


def _failed(detail: str) -> Snapshot:
    error: ProviderError = interface.GenerationFailed(detail)
    return Snapshot(TaskState.FAILED, error=error)


def _under_way(order: Order, elapsed_ms: int) -> Snapshot:
    progress = min(95, 100 * elapsed_ms // max(order.pace_ms, 1))
    shortest_ms, usual_ms, longest_ms = _ASK_AGAIN_MS
    remaining_ms = order.pace_ms - elapsed_ms
    at_most_ms = min(max(remaining_ms // 30, usual_ms), longest_ms)
    poll_after_ms = min(max(remaining_ms, shortest_ms), at_most_ms)
    return Snapshot(TaskState.RUNNING, progress=max(progress, 0), poll_after_ms=poll_after_ms)


def _without_references(generation: Generation) -> Generation:
    # What a provider knows of them is what was uploaded; an address of a customer's is none of its business.
    return replace(generation, references=(), reference_limits=None)


def _uploads(references: Sequence[ReferenceFile]) -> tuple[Upload, ...]:
    return tuple(
        Upload(file.sha256, file.strength, file.role, file.width, file.height) for file in references
    )


def _output(file: RenderedFile) -> OutputRef:
    duration_ms = round((file.duration_s or 0) * 1000)
    return OutputRef(Role(file.role), str(file.path), file.content_type, file.width, file.height, duration_ms)


async def _chunks_of(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _chunks_in(path: Path) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise interface.OutputUnavailable("the drawn file is gone") from error
