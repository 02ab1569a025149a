"""fal's queue. Its list has requests that have ended only, so that what is in doubt is looked for until it must have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import ClassVar, Final

from services.provider_pool.adapters import addresses, remote
from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.fal import answers, requests
from services.provider_pool.adapters.fal.webhooks import Webhooks
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Cancellation,
    Context,
    Feature,
    Generation,
    Hint,
    Kind,
    ModelSpec,
    OutputRef,
    Prepared,
    ProtocolViolation,
    ReferenceFile,
    RemoteFile,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
    Terms,
)
from services.provider_pool.adapters.pace import poll_after_ms

LIST_PAGES: Final = 5
"""Of a hundred requests each; an account that ends more of them within the window runs hundreds at once."""

PICTURE_POLL_MS: Final = 1_000
FILM_POLL_MS: Final = 2_000

_EXTENSIONS: Final[Mapping[str, str]] = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
}
_STATES: Final[Mapping[str, TaskState]] = {
    "IN_QUEUE": TaskState.QUEUED,
    "IN_PROGRESS": TaskState.RUNNING,
}


class FalAdapter(remote.RemoteAdapter):
    """fal's queue takes any number of requests, and runs as many at once as the account may."""

    name: ClassVar[str] = "fal"
    account_noun: ClassVar[str] = "a fal account"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.LIST, Feature.CANCEL, Feature.UPLOAD, Feature.HINTS}
    )
    # The longest films take some fifteen minutes with their time in the queue, and are not in the list before.
    terms: ClassVar[Terms] = Terms(unknown_window_s=1200.0, polls_per_second=10.0, poll_burst=40)
    addresses: ClassVar[Mapping[str, str]] = {
        "base_url": requests.QUEUE,
        "rest_url": requests.REST,
        "api_url": requests.API,
    }

    def __init__(self, models: Sequence[ModelSpec] | None = None) -> None:
        super().__init__(models)
        self._webhooks = Webhooks()

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        remote.check(generation, spec, references)
        requests.endpoint_of(generation, spec)
        return Prepared(generation, spec, requests.body_of(generation, spec), tuple(references))

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        generation = prepared.generation
        endpoint = requests.endpoint_of(generation, prepared.spec)
        answer = await context.calls.send(
            "POST",
            requests.queue_address(account, endpoint),
            headers=requests.headers_of(account) | requests.lifetime_header(),
            query=[("fal_webhook", context.callback_url)] if context.callback_url else (),
            json=requests.with_references(prepared.body, generation, prepared.uploads),
            timeout_s=self.terms.submit_timeout_s,
            billable=True,
        )
        if answer.status not in (200, 201, 202):
            raise answers.submit_error(answer, context.clock.now_ms())
        queued = reading.accepted(answer, answers.Queued)
        request_id = reading.task_id(queued.request_id)
        told = _told_addresses(account, queued) or requests.task_addresses(account, endpoint, request_id)
        return Submission(_task(request_id, context.clock.now_ms(), told, generation.kind))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        status = await self._status(context, account, task)
        state = _STATES.get(status.status)
        if state is not None:
            soonest_ms = FILM_POLL_MS if task.state.get("kind") == Kind.VIDEO else PICTURE_POLL_MS
            elapsed_ms = context.clock.now_ms() - task.submitted_at_ms
            return Snapshot(state, poll_after_ms=poll_after_ms(elapsed_ms, soonest_ms))
        if status.status != "COMPLETED":
            raise ProtocolViolation(f"fal knows a state {reading.word(status.status)}")
        answer = await self._ask(context, account, "GET", _address(account, task, "response_url"))
        error = answers.failure(status, answer)
        if error is not None:
            return Snapshot(TaskState.FAILED, error=error)
        if answer.status != 200:
            raise answers.task_error(answer, context.clock.now_ms())
        found = answers.result(answer)
        if isinstance(found, tuple):
            return Snapshot(TaskState.SUCCEEDED, 100, outputs=found)
        return Snapshot(TaskState.FAILED, error=found)

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        generation = prepared.generation
        endpoint = requests.endpoint_of(generation, prepared.spec)
        return [
            _task(
                one.request_id,
                answers.at_ms(one.sent_at),
                requests.task_addresses(account, endpoint, one.request_id),
                generation.kind,
            )
            for one in await self._listed(context, account, endpoint, since_ms)
            if answers.at_ms(one.sent_at) >= since_ms
            and requests.is_this(one.json_input, prepared.body, generation, prepared.uploads)
        ]

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        answer = await self._ask(context, account, "PUT", _address(account, task, "cancel_url"))
        if answer.status in (400, 404):
            # It had ended, and nobody looked how.
            return Cancellation("maybe")
        if answer.status not in (200, 202):
            raise answers.task_error(answer, context.clock.now_ms())
        # What has not begun never will; what runs may still come to its end before it hears of this.
        status = await self._status(context, account, task)
        never_ran = status.status == "IN_QUEUE" or status.error_type == "client_cancelled"
        return Cancellation("no", 0) if never_ran else Cancellation("maybe")

    async def upload(
        self, context: Context, account: AccountAccess, spec: ModelSpec, file: ReferenceFile
    ) -> RemoteFile:
        extension = _EXTENSIONS.get(file.content_type, "bin")
        answer = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, requests.REST, 'rest_url')}/storage/upload/initiate",
            headers=requests.headers_of(account),
            query=[("storage_type", "fal-cdn-v3")],
            # The name is told to whoever has the address: nothing of the customer's is in it.
            json={"file_name": f"{file.sha256[:32]}.{extension}", "content_type": file.content_type},
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        place = reading.shaped(answer, answers.Presigned)
        if not (addresses.is_address(place.upload_url) and addresses.is_address(place.file_url)):
            raise ProtocolViolation("fal named an address that nothing can be sent to")
        # The address is a credential of its own: the account's goes to nobody else.
        put = await context.calls.send(
            "PUT",
            place.upload_url,
            headers={"content-type": file.content_type},
            file=file.path,
            timeout_s=self.terms.upload_timeout_s,
        )
        if put.status not in (200, 201, 204):
            raise answers.upload_error(put)
        return RemoteFile(place.file_url)

    async def hint(
        self, context: Context, account: AccountAccess, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        rest_url = addresses.base_url(account, requests.REST, "rest_url")
        return await self._webhooks.hint(context, rest_url, headers, body)

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        api = addresses.base_url(account, requests.API, "api_url")
        endpoint = next((str(spec.extras["text"]) for spec in self.models() if "text" in spec.extras), "")
        priced = await self._ask(
            context, account, "GET", f"{api}/v1/models/pricing", query=[("endpoint_id", endpoint)]
        )
        if priced.status != 200:
            raise answers.read_error(priced, context.clock.now_ms())
        if requests.ADMIN_KEY not in account.secrets:
            return AccountStatus(ok=True, detail="the balance is told to an admin_key only")
        billing = await self._ask(
            context,
            account,
            "GET",
            f"{api}/v1/account/billing",
            query=[("expand", "credits")],
            credential=requests.ADMIN_KEY,
        )
        if billing.status in (401, 403):
            # The other key is good, and jobs need no balance.
            return AccountStatus(ok=True, detail="the admin_key may not read the balance")
        if billing.status != 200:
            raise answers.read_error(billing, context.clock.now_ms())
        return AccountStatus(ok=True, balance_millis=answers.balance_millis(billing))

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return context.calls.fetch(output.location, timeout_s=self.terms.fetch_timeout_s)

    async def _status(self, context: Context, account: AccountAccess, task: TaskRef) -> answers.Status:
        answer = await self._ask(context, account, "GET", _address(account, task, "status_url"))
        if answer.status not in (200, 202):
            raise answers.task_error(answer, context.clock.now_ms())
        return reading.shaped(answer, answers.Status)

    async def _listed(
        self, context: Context, account: AccountAccess, endpoint: str, since_ms: int
    ) -> list[answers.Listed]:
        api = addresses.base_url(account, requests.API, "api_url")
        query = [
            ("endpoint_id", endpoint),
            ("start", datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="milliseconds")),
            ("limit", "100"),
            ("expand", "payloads"),
        ]
        found: list[answers.Listed] = []
        cursor: str | None = None
        for _ in range(LIST_PAGES):
            after = [("cursor", cursor)] if cursor else []
            answer = await self._ask(
                context, account, "GET", f"{api}/v1/models/requests/by-endpoint", query=[*query, *after]
            )
            if answer.status != 200:
                raise answers.read_error(answer, context.clock.now_ms())
            page = reading.shaped(answer, answers.Page)
            found += reading.readable(page.items, answers.Listed)
            cursor = page.next_cursor
            if not page.has_more or not cursor:
                break
        return found

    async def _ask(
        self,
        context: Context,
        account: AccountAccess,
        method: str,
        url: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        credential: str = requests.API_KEY,
    ) -> HttpAnswer:
        return await context.calls.send(
            method,
            url,
            headers=requests.headers_of(account, credential),
            query=query,
            timeout_s=self.terms.poll_timeout_s,
        )


def _told_addresses(account: AccountAccess, queued: answers.Queued) -> dict[str, str] | None:
    """The addresses in the answer to a submission, if all lie at the account's own provider.

    A request that was taken is not given up for an address: where they do not, they are put together as documented.
    """
    base = addresses.base_url(account, requests.QUEUE)
    try:
        return {
            "status_url": addresses.own(queued.status_url, base),
            "response_url": addresses.own(queued.response_url, base),
            "cancel_url": addresses.own(queued.cancel_url, base),
        }
    except ProtocolViolation:
        return None


def _address(account: AccountAccess, task: TaskRef, name: str) -> str:
    return addresses.own(task.state.get(name), addresses.base_url(account, requests.QUEUE))


def _task(request_id: str, at_ms: int, told: Mapping[str, str], kind: Kind) -> TaskRef:
    return TaskRef(request_id, at_ms, {**told, "kind": kind.value})
