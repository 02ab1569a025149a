"""Providers that answer a submission with the result: it is kept before anything else is done, and is found there again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Context,
    OutputRef,
    OutputUnavailable,
    Prepared,
    Role,
    Snapshot,
    Submission,
    SubmissionUnknown,
    TaskNotFound,
    TaskRef,
    TaskState,
)
from services.provider_pool.adapters.remote import RemoteAdapter

_KEPT: Final = "kept"
# Behind the result itself, in the order of their names.
_REMOTE_ID: Final = "remote-id.txt"


async def keep(
    context: Context,
    reference: str,
    name: str,
    content: bytes,
    cost_millis: int | None,
    remote_id: str = "",
) -> Submission:
    """The whole result of an attempt, of one file. It is paid for, also where it is lost here.

    `remote_id`: what the provider calls it, where it has a list of what it made: there it is this attempt's from now on.
    Raises SubmissionUnknown where it cannot be kept, OutputUnavailable where it is larger than anything that is.
    """
    try:
        location = await context.results.keep(reference, name, content)
        if remote_id:
            await context.results.keep(reference, _REMOTE_ID, remote_id.encode())
        await context.results.seal(reference)
    except OutputUnavailable as error:
        raise OutputUnavailable(str(error), charged="yes") from None
    except OSError as error:
        raise SubmissionUnknown("the result could not be kept", charged="yes") from error
    done = Snapshot(TaskState.SUCCEEDED, 100, outputs=_outputs([location]), cost_millis=cost_millis)
    return Submission(_task(reference, remote_id, context.clock.now_ms()), done)


class SynchronousAdapter(RemoteAdapter):
    """What is the same for all that are only asked once: a task is known by its attempt, and is over when it is known."""

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        locations = await context.results.found(_reference(task))
        if not locations:
            raise TaskNotFound("no result was kept")
        return Snapshot(TaskState.SUCCEEDED, 100, outputs=_outputs(locations))

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        found = await context.results.found(reference)
        if not found:
            return []
        remote_id = ""
        if found[-1].endswith(f"/{_REMOTE_ID}"):
            async with context.results.open(found[-1]) as chunks:
                remote_id = reading.word(
                    b"".join([chunk async for chunk in chunks]).decode("ascii", "replace")
                )
        # It is as old as the attempt is: nothing that was sent later is what was kept here.
        return [_task(reference, remote_id, min(max(since_ms, 0), context.clock.now_ms()))]

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return context.results.open(output.location)

    async def forget(self, context: Context, account: AccountAccess, task: TaskRef) -> None:
        await context.results.forget(_reference(task))


def _task(reference: str, remote_id: str, at_ms: int) -> TaskRef:
    return TaskRef(remote_id, at_ms, {_KEPT: reference}) if remote_id else TaskRef(reference, at_ms)


def _reference(task: TaskRef) -> str:
    return task.state.get(_KEPT, task.task_id)


def _outputs(locations: Sequence[str]) -> tuple[OutputRef, ...]:
    return tuple(OutputRef(Role.PRIMARY, location) for location in locations[:1])
