"""Runway: what was sent cannot be looked for, but everything costs what its answers say, and outputs are renewed by asking."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import ClassVar, Final

from services.provider_pool.adapters import addresses, pace, remote
from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Cancellation,
    Context,
    Feature,
    Generation,
    InvalidRequest,
    ModelSpec,
    OutputRef,
    OutputUnavailable,
    Prepared,
    ReferenceFile,
    ReferenceRejected,
    RemoteFile,
    Snapshot,
    Submission,
    TaskNotFound,
    TaskRef,
    Terms,
    TransientFailure,
)
from services.provider_pool.adapters.runway import answers, requests

OFFICIAL: Final = "https://api.dev.runwayml.com"

# The provider asks not to be asked more often.
_SOONEST_POLL_MS: Final = 5_000
_UPLOADED: Final = frozenset({200, 201, 204})


class RunwayAdapter(remote.RemoteAdapter):
    """Nothing is kept here for an account."""

    name: ClassVar[str] = "runway"
    account_noun: ClassVar[str] = "a Runway account"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.CANCEL, Feature.UPLOAD})
    # Uploads are called ephemeral, and live for a day; a job may wait for half of one.
    terms: ClassVar[Terms] = Terms(
        submit_timeout_s=60.0,
        polls_per_second=5.0,
        poll_burst=20,
        usd_micros_per_unit=10_000,
        upload_lifetime_s=43_200,
    )
    addresses: ClassVar[Mapping[str, str]] = {"base_url": OFFICIAL}

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        size = remote.checked_size(generation, spec, references)
        return Prepared(generation, spec, requests.body_of(generation, spec, size), tuple(references))

    async def upload(
        self, context: Context, account: AccountAccess, spec: ModelSpec, file: ReferenceFile
    ) -> RemoteFile:
        extension = requests.EXTENSIONS.get(file.content_type)
        if extension is None:
            raise ReferenceRejected(f"runway takes no {file.content_type}")
        file_name = f"reference.{extension}"
        asked = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, OFFICIAL)}/v1/uploads",
            headers=requests.headers_of(account),
            json={"filename": file_name, "type": "ephemeral"},
            timeout_s=self.terms.poll_timeout_s,
        )
        if asked.status not in (200, 201):
            raise answers.upload_error(asked, context.clock.now_ms())
        location, url, form = answers.upload_form(asked, file, file_name)
        stored = await context.calls.send("POST", url, form=form, timeout_s=self.terms.upload_timeout_s)
        if stored.status not in _UPLOADED:
            raise TransientFailure(f"runway's store answered {stored.status}")
        return RemoteFile(location)

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        if len(prepared.uploads) != len(prepared.references):
            raise InvalidRequest("runway: a reference was not uploaded")
        answer = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, OFFICIAL)}{requests.path_of(prepared.references)}",
            headers=requests.headers_of(account),
            json=requests.with_references(prepared.body, prepared.references, prepared.uploads),
            timeout_s=self.terms.submit_timeout_s,
            billable=True,
        )
        if answer.status != 200:
            raise answers.submit_error(answer, context.clock.now_ms())
        return Submission(TaskRef(answers.created(answer), context.clock.now_ms()))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        age_ms = context.clock.now_ms() - task.submitted_at_ms
        told = await self._told(context, account, task)
        return answers.snapshot(told, pace.poll_after_ms(age_ms, _SOONEST_POLL_MS))

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        answer = await self._call(context, account, "GET", "/v1/organization")
        return answers.account_status(answer, [spec.upstream for spec in self._models])

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        """A task that has ended is not deleted: its record tells what it cost."""
        before = await self._told(context, account, task)
        if answers.is_over(before):
            return answers.cancellation(before)
        await self._call(context, account, "DELETE", f"/v1/tasks/{task.task_id}")
        try:
            after = await self._told(context, account, task)
        except TaskNotFound:
            return Cancellation("maybe")
        return answers.cancellation(after)

    @asynccontextmanager
    async def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with AsyncExitStack() as stack:
            timeout_s = self.terms.fetch_timeout_s
            try:
                chunks = await stack.enter_async_context(
                    context.calls.fetch(output.location, timeout_s=timeout_s)
                )
            except OutputUnavailable:
                # Addresses are good for a day or two; asking about the task renews them.
                renewed = answers.snapshot(await self._told(context, account, task), 0).outputs
                if not renewed:
                    raise
                chunks = await stack.enter_async_context(
                    context.calls.fetch(renewed[0].location, timeout_s=timeout_s)
                )
            yield chunks

    async def _told(self, context: Context, account: AccountAccess, task: TaskRef) -> answers.Task:
        answer = await self._call(context, account, "GET", f"/v1/tasks/{task.task_id}")
        return reading.shaped(answer, answers.Task)

    async def _call(self, context: Context, account: AccountAccess, method: str, path: str) -> HttpAnswer:
        answer = await context.calls.send(
            method,
            f"{addresses.base_url(account, OFFICIAL)}{path}",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status not in (200, 204):
            raise answers.read_error(answer, context.clock.now_ms())
        return answer
