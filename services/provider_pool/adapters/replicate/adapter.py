"""Replicate's predictions: listed newest first, signed webhooks, outputs that are gone an hour after their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

import msgspec

from services.chassis.settings import Secret
from services.provider_pool.adapters import addresses, remote
from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import FormPart
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Cancellation,
    Context,
    Feature,
    Generation,
    Hint,
    ModelSpec,
    OutputRef,
    Prepared,
    ProtocolViolation,
    ReferenceFile,
    RemoteFile,
    Snapshot,
    Submission,
    TaskNotFound,
    TaskRef,
    TaskState,
    Terms,
)
from services.provider_pool.adapters.replicate import answers, requests
from services.provider_pool.adapters.signatures import standard_id

POLL_PAGES: Final = 2
"""Of a hundred predictions each. What is older than those of so many is asked for by itself."""

LIST_PAGES: Final = 10
"""Of the time in which a submission was in doubt; 600 creations a minute are what an account may have."""

SINGLE_CALLS: Final = 4
"""Questions at once for predictions that the pages do not have: some forty a second, and fifty calls are what an account may have."""


class ReplicateAdapter(remote.RemoteAdapter):
    """Official models only: their price goes by the output, and nothing has to be kept warm."""

    name: ClassVar[str] = "replicate"
    account_noun: ClassVar[str] = "a Replicate account"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.LIST, Feature.POLL_MANY, Feature.CANCEL, Feature.UPLOAD, Feature.HINTS}
    )
    # A question is a page or two for up to a hundred predictions. A prediction is in the list when its creation is answered.
    terms: ClassVar[Terms] = Terms(
        poll_timeout_s=20.0,
        unknown_window_s=120.0,
        polls_per_second=5.0,
        poll_burst=10,
        submits_per_minute=600,
        # Their files are said to be kept as long as inputs and outputs: an hour.
        upload_lifetime_s=3_000,
    )
    addresses: ClassVar[Mapping[str, str]] = {"base_url": requests.OFFICIAL}

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        remote.check(generation, spec, references)
        return Prepared(generation, spec, requests.input_of(generation, spec), tuple(references))

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        generation, uploads = prepared.generation, prepared.uploads
        answer = await context.calls.send(
            "POST",
            requests.model_address(account, prepared.spec),
            headers=requests.headers_of(account),
            json=requests.body_of(prepared.body, generation, uploads, context.callback_url),
            timeout_s=self.terms.submit_timeout_s,
            billable=True,
        )
        if answer.status not in (200, 201, 202):
            raise answers.submit_error(answer, context.clock.now_ms())
        told = reading.accepted(answer, answers.Prediction)
        return Submission(TaskRef(reading.task_id(told.id), context.clock.now_ms()))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        answer = await context.calls.send(
            "GET",
            requests.prediction_address(account, task.task_id),
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        return _snapshot(context, task, reading.shaped(answer, answers.Prediction))

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        listed: dict[str, answers.Prediction] = {}
        wanted = {task.task_id for task in tasks}
        # For one, itself is the shorter question.
        async for page in self._pages(context, account, POLL_PAGES if len(tasks) > 1 else 0):
            listed |= {one.id: one for one in page if one.id in wanted and answers.is_whole(one)}
            if listed.keys() == wanted:
                break
        found = {
            task.task_id: _listed(context, task, listed[task.task_id])
            for task in tasks
            if task.task_id in listed
        }
        others = [task for task in tasks if task.task_id not in listed]
        return found | await self._poll_each(context, account, others)

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        answer = await context.calls.send(
            "GET",
            f"{addresses.base_url(account, requests.OFFICIAL)}/v1/account",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        return AccountStatus(ok=True, detail="Replicate tells no balance")

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        found: list[TaskRef] = []
        async for page in self._pages(context, account, LIST_PAGES):
            found += [
                TaskRef(one.id, answers.at_ms(one.created_at))
                for one in page
                if answers.at_ms(one.created_at) >= since_ms
                and one.model in (None, prepared.spec.upstream)
                and requests.is_this(one.input, prepared.body, prepared.generation, prepared.uploads)
            ]
            if page and answers.at_ms(page[-1].created_at) < since_ms:
                break
        return found

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        answer = await context.calls.send(
            "POST",
            f"{requests.prediction_address(account, task.task_id)}/cancel",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status in (404, 409, 410, 422):
            return Cancellation("maybe")
        if answer.status not in (200, 202):
            raise answers.read_error(answer, context.clock.now_ms())
        return answers.cancellation(reading.shaped(answer, answers.Prediction))

    async def upload(
        self, context: Context, account: AccountAccess, spec: ModelSpec, file: ReferenceFile
    ) -> RemoteFile:
        part = FormPart("content", path=file.path, file_name=file.sha256[:32], content_type=file.content_type)
        answer = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, requests.OFFICIAL)}/v1/files",
            headers=requests.headers_of(account),
            form=[part],
            timeout_s=self.terms.upload_timeout_s,
        )
        if answer.status not in (200, 201):
            raise answers.read_error(answer, context.clock.now_ms())
        told = reading.shaped(answer, answers.Uploaded)
        if not addresses.is_address(told.urls.get):
            raise ProtocolViolation("replicate named an address that nothing can be read from")
        return RemoteFile(told.urls.get, answers.at_ms(told.expires_at))

    async def hint(
        self, context: Context, account: AccountAccess, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        secret = account.secrets.get("webhook_secret") or await self._webhook_secret(context, account)
        delivery_id = standard_id(secret, headers, body, context.clock.now_ms())
        if delivery_id is None:
            return None
        try:
            return Hint((msgspec.json.decode(body, type=answers.Prediction).id,), delivery_id)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return context.calls.fetch(output.location, timeout_s=self.terms.fetch_timeout_s)

    async def _poll_each(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> dict[str, Snapshot]:
        turns = asyncio.Semaphore(SINGLE_CALLS)

        async def one(task: TaskRef) -> Snapshot | None:
            async with turns:
                try:
                    return await self.poll(context, account, task)
                except TaskNotFound:
                    return None
                except ProtocolViolation:
                    return _no_news()

        snapshots = await asyncio.gather(*map(one, tasks))
        return {
            task.task_id: snapshot
            for task, snapshot in zip(tasks, snapshots, strict=True)
            if snapshot is not None
        }

    async def _pages(
        self, context: Context, account: AccountAccess, limit: int
    ) -> AsyncIterator[list[answers.Prediction]]:
        base = addresses.base_url(account, requests.OFFICIAL)
        url: str | None = f"{base}/v1/predictions"
        for _ in range(limit):
            if not url:
                return
            answer = await context.calls.send(
                "GET", url, headers=requests.headers_of(account), timeout_s=self.terms.poll_timeout_s
            )
            if answer.status != 200:
                raise answers.read_error(answer, context.clock.now_ms())
            page = reading.shaped(answer, answers.Page)
            yield reading.readable(page.results, answers.Prediction)
            url = addresses.own(page.next, base) if page.next else None

    async def _webhook_secret(self, context: Context, account: AccountAccess) -> Secret:
        answer = await context.calls.send(
            "GET",
            f"{addresses.base_url(account, requests.OFFICIAL)}/v1/webhooks/default/secret",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        return Secret(reading.shaped(answer, answers.WebhookSecret).key)


def _snapshot(context: Context, task: TaskRef, told: answers.Prediction) -> Snapshot:
    return answers.snapshot(told, context.clock.now_ms() - task.submitted_at_ms)


def _listed(context: Context, task: TaskRef, told: answers.Prediction) -> Snapshot:
    try:
        return _snapshot(context, task, told)
    except ProtocolViolation:
        return _no_news()


def _no_news() -> Snapshot:
    # One task that nobody understands must not stand before all others of its account; its patience ends it.
    return Snapshot(TaskState.RUNNING)
