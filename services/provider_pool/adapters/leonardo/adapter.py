"""Leonardo.Ai: pictures, films and music; what was sent is found again in the user's own list, by its words, size and seed."""

from __future__ import annotations

import asyncio
import hmac
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

from services.provider_pool.adapters import addresses, pace, remote
from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Context,
    Feature,
    Generation,
    Hint,
    InvalidRequest,
    Kind,
    ModelSpec,
    OutputRef,
    Prepared,
    ProtocolViolation,
    ReferenceFile,
    ReferenceRejected,
    RemoteFile,
    Snapshot,
    Submission,
    TaskNotFound,
    TaskRef,
    TaskState,
    Terms,
    TransientFailure,
)
from services.provider_pool.adapters.leonardo import answers, requests

OFFICIAL: Final = "https://cloud.leonardo.ai"

BALANCE_OPTION: Final = "token_usd_micros"
"""An account's option: what one token of the balance that the provider tells is worth, in millionths of a US dollar."""

# Eighty tokens are told for what costs 0.80 dollars.
_TOKEN_USD_MICROS: Final = 10_000
_ME: Final = "/api/rest/v1/me"
_UPLOADED: Final = frozenset({200, 201, 204})
_PAGE: Final = 50
_PAGES_OF_A_SEARCH: Final = 6
_PAGES_OF_A_POLL: Final = 3
# Fewer are asked about one by one: a list is two calls, and the second is a long answer.
_WORTH_A_LIST: Final = 4
# What the pages do not have is asked about one by one, so many in a question; of the others there is no news until another.
_SINGLE_CALLS: Final = 4


class LeonardoAdapter(remote.RemoteAdapter):
    """Nothing is kept here for an account."""

    name: ClassVar[str] = "leonardo"
    account_noun: ClassVar[str] = "a Leonardo account"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.LIST, Feature.POLL_MANY, Feature.UPLOAD, Feature.HINTS}
    )
    # 2,000 calls a minute in all, a hundred of each kind that begins something. Uploaded pictures stay until they are deleted.
    terms: ClassVar[Terms] = Terms(
        submit_timeout_s=60.0,
        polls_per_second=10.0,
        poll_burst=20,
        submits_per_minute=100,
        upload_lifetime_s=7 * 86_400,
    )

    addresses: ClassVar[Mapping[str, str]] = {"base_url": OFFICIAL}

    def own_options(self) -> Collection[str]:
        return (BALANCE_OPTION,)

    def own_complaint(self, options: Mapping[str, str]) -> str | None:
        worth = options.get(BALANCE_OPTION, "1")
        if not worth.isdecimal() or not 0 < int(worth) <= 1_000_000_000:
            return f"option {BALANCE_OPTION} must be a whole number of millionths of a dollar"
        return None

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        remote.check(generation, spec, references)
        sizes = spec.capability.sizes
        size = None if sizes is None else sizes.chosen(generation, references)
        return Prepared(generation, spec, requests.body_of(generation, spec, size), tuple(references))

    async def upload(
        self, context: Context, account: AccountAccess, spec: ModelSpec, file: ReferenceFile
    ) -> RemoteFile:
        extension = requests.EXTENSIONS.get(file.content_type)
        if extension is None:
            raise ReferenceRejected(f"leonardo takes no {file.content_type}")
        asked = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, OFFICIAL)}/api/rest/v1/init-image",
            headers=requests.headers_of(account),
            json={"extension": extension},
            timeout_s=self.terms.poll_timeout_s,
        )
        if answers.is_error(asked):
            raise answers.upload_error(asked, context.clock.now_ms())
        image_id, url, form = answers.upload_form(asked, file, extension)
        # The form is its own permission; the account's key is none of the store's business.
        stored = await context.calls.send("POST", url, form=form, timeout_s=self.terms.upload_timeout_s)
        if stored.status not in _UPLOADED:
            raise TransientFailure(f"leonardo's store answered {stored.status}")
        return RemoteFile(image_id)

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        if len(prepared.uploads) != len(prepared.references):
            raise InvalidRequest("leonardo: a reference was not uploaded")
        spec = prepared.spec
        answer = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, OFFICIAL)}{requests.path_of(spec)}",
            headers=requests.headers_of(account),
            json=requests.with_references(
                prepared.body,
                spec,
                prepared.references,
                prepared.uploads,
                requests.mark_of(prepared.generation, spec, reference),
            ),
            timeout_s=self.terms.submit_timeout_s,
            billable=True,
        )
        if answers.is_error(answer):
            raise answers.submit_error(answer, context.clock.now_ms())
        begun = answers.begun(answer, _token_usd_micros(account))
        task = _task(begun.task_id, context.clock.now_ms(), spec, begun.cost_millis)
        return Submission(task, cost_millis=begun.cost_millis)

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        answer = await self._get(context, account, f"{requests.V1_PATH}/{task.task_id}")
        return _snapshot(context, task, answers.polled(answer))

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        wanted = {task.task_id: task for task in tasks}
        found: dict[str, Snapshot] = {}
        if len(wanted) >= _WORTH_A_LIST:
            user_id = await self._user_id(context, account)
            for number in range(_PAGES_OF_A_POLL):
                page, count = await self._page(context, account, user_id, number * _PAGE)
                found |= {i.id: _snapshot(context, wanted[i.id], i) for i in page if i.id in wanted}
                if count < _PAGE or len(found) == len(wanted):
                    break
        # What has slid off these pages is not lost.
        missing = [task for task in wanted.values() if task.task_id not in found]
        # Drawn, so that nobody is always behind the same others.
        drawn = set(random.sample(range(len(missing)), min(len(missing), _SINGLE_CALLS)))
        asked = [task for number, task in enumerate(missing) if number in drawn]
        told = await asyncio.gather(*(self._poll_if_known(context, account, task) for task in asked))
        found |= {task.task_id: Snapshot(TaskState.RUNNING) for task in missing if task not in asked}
        found |= {task.task_id: one for task, one in zip(asked, told, strict=True) if one is not None}
        return found

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        return answers.account_status(await self._get(context, account, _ME), _token_usd_micros(account))

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        user_id = await self._user_id(context, account)
        listed: list[answers.Item] = []
        # The order is not documented: what is not on these pages is older, or the account begins hundreds a minute.
        for number in range(_PAGES_OF_A_SEARCH):
            page, count = await self._page(context, account, user_id, number * _PAGE)
            listed += page
            if count < _PAGE or not any(_is_since(item, since_ms) for item in page):
                break
        now_ms = context.clock.now_ms()
        return [
            _task(
                item.id,
                min(answers.created_at_ms(item) or since_ms, now_ms),
                prepared.spec,
                None,
            )
            for item in listed
            if reading.word(item.id) and _is_since(item, since_ms) and _is_asked(item, prepared, reference)
        ]

    async def hint(
        self, context: Context, account: AccountAccess, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        """The callback key that the operator set with the API key, where the account has it; nothing is signed."""
        secret = account.secrets.get("webhook_secret")
        told = headers.get("authorization", "").encode("utf-8", "replace")
        if secret is not None and not hmac.compare_digest(told, f"Bearer {secret.reveal()}".encode()):
            return None
        task_id = answers.hinted(body)
        return None if task_id is None else Hint((task_id,))

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return context.calls.fetch(output.location, timeout_s=self.terms.fetch_timeout_s)

    async def _poll_if_known(
        self, context: Context, account: AccountAccess, task: TaskRef
    ) -> Snapshot | None:
        try:
            return await self.poll(context, account, task)
        except TaskNotFound:
            return None
        except ProtocolViolation:
            # One that nobody understands must not stand before all others of its account; its patience ends it.
            return Snapshot(TaskState.RUNNING)

    async def _user_id(self, context: Context, account: AccountAccess) -> str:
        return answers.user_id(await self._get(context, account, _ME))

    async def _page(
        self, context: Context, account: AccountAccess, user_id: str, offset: int
    ) -> tuple[list[answers.Item], int]:
        query = [("offset", str(offset)), ("limit", str(_PAGE))]
        path = f"{requests.V1_PATH}/user/{user_id}"
        return answers.listed(await self._get(context, account, path, query))

    async def _get(
        self, context: Context, account: AccountAccess, path: str, query: Sequence[tuple[str, str]] = ()
    ) -> HttpAnswer:
        answer = await context.calls.send(
            "GET",
            f"{addresses.base_url(account, OFFICIAL)}{path}",
            headers=requests.headers_of(account),
            query=query,
            timeout_s=self.terms.poll_timeout_s,
        )
        if answers.is_error(answer):
            raise answers.read_error(answer, context.clock.now_ms())
        return answer


def _token_usd_micros(account: AccountAccess) -> int:
    return int(account.options.get(BALANCE_OPTION) or _TOKEN_USD_MICROS)


def _task(task_id: str, at_ms: int, spec: ModelSpec, cost_millis: int | None) -> TaskRef:
    state = {"kind": spec.kind.value}
    if cost_millis is not None:
        state["cost_millis"] = str(cost_millis)
    return TaskRef(task_id, at_ms, state)


def _snapshot(context: Context, task: TaskRef, item: answers.Item) -> Snapshot:
    kind = Kind(task.state.get("kind", Kind.IMAGE))
    cost = task.state.get("cost_millis")
    wait_ms = pace.poll_after_ms(context.clock.now_ms() - task.submitted_at_ms)
    return answers.snapshot(item, kind, wait_ms, None if cost is None else int(cost))


def _is_since(item: answers.Item, since_ms: int) -> bool:
    at_ms = answers.created_at_ms(item)
    return at_ms is not None and at_ms >= since_ms


def _is_asked(item: answers.Item, prepared: Prepared, reference: str) -> bool:
    """Whether it has the words, and the size, where it tells one; with references also the attempt's own seed.

    Others may have sent the same words with pictures of their own, and those are not listed.
    """
    body = prepared.body
    if prepared.references:
        mark = requests.mark_of(prepared.generation, prepared.spec, reference)
        if mark is None or item.seed != mark:
            return False
    parameters = body.get("parameters")
    asked = parameters if isinstance(parameters, Mapping) else body
    if item.prompt != asked["prompt"]:
        return False
    if "modelId" in body and item.model_id not in (None, body["modelId"]):
        return False
    pairs = ((item.width, asked.get("width")), (item.height, asked.get("height")))
    return all(told == wanted for told, wanted in pairs if told and wanted)
