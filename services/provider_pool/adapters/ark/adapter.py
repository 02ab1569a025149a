"""Ark: tasks with a list that says what was asked for, so that nothing sent there is ever sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

import msgspec

from services.provider_pool.adapters import addresses, pace, remote
from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.ark import answers, requests
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.costs import VideoTokens
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Cancellation,
    Context,
    Feature,
    Generation,
    Hint,
    InvalidRequest,
    ModelSpec,
    OutputRef,
    Prepared,
    ReferenceFile,
    ReferenceRole,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
    Terms,
)

OFFICIAL: Final = "https://ark.ap-southeast.bytepluses.com"

_TASKS: Final = "/api/v3/contents/generations/tasks"
_PAGE: Final = 100
# Ids are sixty characters; so many of them fit any proxy's address line.
_IDS_IN_A_QUESTION: Final = 50
# Of one model and account: the list keeps seven days, and what is looked for is minutes old.
_PAGES_OF_A_SEARCH: Final = 5


class ArkAdapter(remote.RemoteAdapter):
    """Seedance where it comes from. Nothing is kept here for an account."""

    name: ClassVar[str] = "ark"
    account_noun: ClassVar[str] = "an Ark account"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.LIST, Feature.POLL_MANY, Feature.CANCEL, Feature.HINTS}
    )
    # Pictures travel inside the request, 60 MB at most. 180 a minute is what Seedance 2 allows a model.
    terms: ClassVar[Terms] = Terms(
        submit_timeout_s=90.0, polls_per_second=5.0, poll_burst=10, submits_per_minute=180
    )

    addresses: ClassVar[Mapping[str, str]] = {"base_url": OFFICIAL}

    def __init__(self, models: Sequence[ModelSpec] | None = None) -> None:
        super().__init__(models)
        self._by_name = {spec.model: spec for spec in self._models}

    def own_options(self) -> Collection[str]:
        return [f"{requests.MODEL_OPTION}{model}" for model in self._by_name]

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        size = remote.checked_size(generation, spec, references)
        return Prepared(generation, spec, requests.body_of(generation, spec, size), tuple(references))

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        try:
            items = await asyncio.to_thread(requests.reference_items, prepared.references)
        except OSError:
            raise InvalidRequest("a reference is gone") from None
        answer = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, OFFICIAL)}{_TASKS}",
            headers=requests.headers_of(account),
            json=requests.sent_body(prepared, account, reference, items, context.callback_url),
            timeout_s=self.terms.submit_timeout_s,
            billable=True,
        )
        if answer.status != 200:
            raise answers.submit_error(answer, context.clock.now_ms())
        return Submission(_task(answers.created(answer), context.clock.now_ms(), prepared))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        answer = await self._get(context, account, f"{_TASKS}/{task.task_id}")
        return self._snapshot(context, task, reading.shaped(answer, answers.Task))

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        wanted = {task.task_id: task for task in tasks}
        ids = list(wanted)
        found: dict[str, Snapshot] = {}
        for start in range(0, len(ids), _IDS_IN_A_QUESTION):
            query = [("filter.task_ids", each) for each in ids[start : start + _IDS_IN_A_QUESTION]]
            page = await self._page(context, account, 1, query)
            for told in reading.readable(page.items, answers.Task):
                if told.id in wanted:
                    found[told.id] = self._snapshot(context, wanted[told.id], told)
            # Known, and not understood: no news, which patience ends.
            named = reading.readable(page.items, answers.Named)
            found |= {
                one.id: Snapshot(TaskState.RUNNING)
                for one in named
                if one.id in wanted and one.id not in found
            }
        return found

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        await self._get(context, account, _TASKS, [("page_num", "1"), ("page_size", "1")])
        return AccountStatus(ok=True)

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        name = requests.listed_as(prepared.spec, account)
        query = [("filter.model", name)] if name else []
        listed: list[answers.Task] = []
        for number in range(1, _PAGES_OF_A_SEARCH + 1):
            page = await self._page(context, account, number, query)
            listed += reading.readable(page.items, answers.Task)
            if len(page.items) < _PAGE:
                break
        ours = _ours(listed, prepared, since_ms, reference)
        now_ms = context.clock.now_ms()
        return [_task(told.id, min(told.created_at * 1000, now_ms), prepared) for told in ours]

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        """Only what still waits can be stopped; a record of what has ended is not deleted, for it tells what it cost."""
        before = await self.poll(context, account, task)
        if before.error is not None:
            return Cancellation(before.error.charged, before.cost_millis)
        if before.outputs:
            return Cancellation("yes", before.cost_millis)
        if before.state is not TaskState.QUEUED:
            # It may end before this arrives, and then its record would go instead.
            return Cancellation("maybe")
        answer = await context.calls.send(
            "DELETE",
            f"{addresses.base_url(account, OFFICIAL)}{_TASKS}/{task.task_id}",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status in (200, 204):
            return Cancellation("no", 0)
        if answer.status == 409:
            return Cancellation("maybe")
        raise answers.read_error(answer, context.clock.now_ms())

    async def hint(
        self, context: Context, account: AccountAccess, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        """Nothing is signed: the unguessable address is all there is."""
        try:
            told = msgspec.json.decode(body, type=answers.Task)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return Hint((told.id,), f"{told.id} {told.status}") if reading.word(told.id) else None

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return context.calls.fetch(output.location, timeout_s=self.terms.fetch_timeout_s)

    async def _page(
        self, context: Context, account: AccountAccess, number: int, query: Sequence[tuple[str, str]]
    ) -> answers.Page:
        asked = [("page_num", str(number)), ("page_size", str(_PAGE)), *query]
        return reading.shaped(await self._get(context, account, _TASKS, asked), answers.Page)

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
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        return answer

    def _snapshot(self, context: Context, task: TaskRef, told: answers.Task) -> Snapshot:
        wait_ms = pace.poll_after_ms(context.clock.now_ms() - task.submitted_at_ms)
        return answers.snapshot(told, wait_ms, lambda ended: self._cost_millis(task, ended))

    def _cost_millis(self, task: TaskRef, told: answers.Task) -> int | None:
        spec = self._by_name.get(task.state.get("model", ""))
        tokens = told.usage.completion_tokens if told.usage else None
        if spec is None or tokens is None or not isinstance(spec.cost, VideoTokens):
            return None
        cost = spec.cost.charged_millis(told.resolution or "", task.state.get("video") == "1", tokens)
        return cost if 0 <= cost <= reading.COST_LIMIT_MILLIS else None


def _task(task_id: str, at_ms: int, prepared: Prepared) -> TaskRef:
    roles = [file.role for file in prepared.references]
    state = {"model": prepared.spec.model, "video": "1" if ReferenceRole.VIDEO in roles else "0"}
    return TaskRef(task_id, at_ms, state)


def _ours(
    listed: Iterable[answers.Task], prepared: Prepared, since_ms: int, reference: str
) -> list[answers.Task]:
    """Those that carry the attempt's mark; where no mark is listed, the seed that only this attempt has.

    Prompts are not listed, so that nothing else tells one customer's task from another's of the same shape.
    """
    mark = requests.mark_of(reference)
    seed = None if prepared.generation.seed is not None else requests.seed_of(prepared.generation, reference)
    asked = [prepared.body[name] for name in ("resolution", "ratio", "duration")]
    return [
        told
        for told in listed
        if reading.word(told.id)
        and (told.created_at + 1) * 1000 > since_ms
        and (
            told.safety_identifier == mark
            if told.safety_identifier
            else (
                seed is not None
                and told.seed == seed
                and [told.resolution, told.ratio, told.duration] == asked
            )
        )
    ]
