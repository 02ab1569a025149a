"""Providers that answer a submission with the result: it is kept before anything else is done, and is found there again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

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


async def keep(
    context: Context, reference: str, name: str, content: bytes, cost_millis: int | None
) -> Submission:
    """The whole result of an attempt, of one file. It is paid for, also where it is lost here.

    Raises SubmissionUnknown where it cannot be kept, OutputUnavailable where it is larger than anything that is.
    """
    try:
        location = await context.results.keep(reference, name, content)
        await context.results.seal(reference)
    except OutputUnavailable as error:
        raise OutputUnavailable(str(error), charged="yes") from None
    except OSError as error:
        raise SubmissionUnknown("the result could not be kept", charged="yes") from error
    done = Snapshot(TaskState.SUCCEEDED, 100, outputs=_outputs([location]), cost_millis=cost_millis)
    return Submission(TaskRef(reference, context.clock.now_ms()), done)


class SynchronousAdapter(RemoteAdapter):
    """What is the same for all that are only asked once: a task is known by its attempt, and is over when it is known."""

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        locations = await context.results.found(task.task_id)
        if not locations:
            raise TaskNotFound("no result was kept")
        return Snapshot(TaskState.SUCCEEDED, 100, outputs=_outputs(locations))

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        found = await context.results.found(reference)
        return [TaskRef(reference, context.clock.now_ms())] if found else []

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return context.results.open(output.location)

    async def forget(self, context: Context, account: AccountAccess, task: TaskRef) -> None:
        await context.results.forget(task.task_id)


def _outputs(locations: Sequence[str]) -> tuple[OutputRef, ...]:
    return tuple(OutputRef(Role.PRIMARY, location) for location in locations[:1])
