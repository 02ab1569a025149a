"""ElevenLabs' speech and music, each in the answer to its request; speech whose answer was lost is found in the history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final
from urllib.parse import quote

from services.provider_pool.adapters import addresses, synchronous
from services.provider_pool.adapters.elevenlabs import answers, requests
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Context,
    Feature,
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
    OutputRef,
    Prepared,
    ReferenceFile,
    Role,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
    Terms,
)

SUBMIT_TIMEOUT_S: Final = 300.0
"""Ten minutes of music are composed in about two; long texts are read in less."""

SOUND_LIMIT_BYTES: Final = 96 * 1024 * 1024
"""Ten thousand characters take some twelve minutes to read, as WAV of 24 kHz 35 MB; twice that, and some more."""

HISTORY_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Of a page of a hundred texts of ten thousand characters; of an unusual script, some of them twelve bytes each in JSON."""

_HISTORY: Final = "/v1/history"
_PAGE: Final = 100
# What is looked for is minutes old: on these pages, or the account speaks hundreds of times a minute.
_PAGES_OF_A_SEARCH: Final = 5
_ITEM: Final = "history"
_COST: Final = "cost_millis"


class ElevenLabsAdapter(synchronous.SynchronousAdapter):
    """Answers come with the result. What bounds an account is how many requests it may have open."""

    name: ClassVar[str] = "elevenlabs"
    account_noun: ClassVar[str] = "an ElevenLabs account"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.LIST})
    # What was kept here is there at once; in the history a text is when it has been read, and the longest take two minutes.
    # A credit is what a plan's price is by its credits: 22 dollars for 100,000.
    terms: ClassVar[Terms] = Terms(
        submit_timeout_s=SUBMIT_TIMEOUT_S,
        unknown_window_s=120.0,
        polls_per_second=100.0,
        poll_burst=200,
        usd_micros_per_unit=220,
    )
    addresses: ClassVar[Mapping[str, str]] = {"base_url": requests.OFFICIAL}

    def own_options(self) -> Collection[str]:
        return {f"voice_{name}" for spec in self.models() for name in spec.capability.voices}

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        if generation.kind is not spec.kind or not spec.capability.accepts(generation) or references:
            raise InvalidRequest(f"{spec.upstream} cannot make this")
        return Prepared(generation, spec, requests.body_of(generation, spec))

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        generation, spec = prepared.generation, prepared.spec
        base = addresses.base_url(account, requests.OFFICIAL)
        answer = await context.calls.send(
            "POST",
            base + requests.path_of(generation, spec, account),
            headers=requests.headers_of(account),
            query=requests.query_of(generation, spec),
            json=prepared.body,
            timeout_s=SUBMIT_TIMEOUT_S,
            limit_bytes=SOUND_LIMIT_BYTES,
            billable=True,
        )
        if answer.status != 200:
            raise answers.submit_error(answer, context.clock.now_ms())
        sound, name = answers.sound(answer), requests.file_name_of(generation)
        cost_millis, remote_id = answers.cost_millis(answer), answers.request_id(answer)
        return await synchronous.keep(context, reference, name, sound, cost_millis, remote_id)

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        item_id = task.state.get(_ITEM)
        if item_id is None:
            return await super().poll(context, account, task)
        cost = task.state.get(_COST)
        return Snapshot(
            TaskState.SUCCEEDED,
            100,
            outputs=(OutputRef(Role.PRIMARY, item_id),),
            cost_millis=None if cost is None else int(cost),
        )

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        """What was kept here, or else what the history has of exactly this text, voice and model since then.

        A history item goes by its request's id, which is also that of the attempt that got the answer: what another attempt
        has is not adopted, and an item without such an id is nobody's.
        """
        kept = await super().list_tasks(context, account, prepared, since_ms, reference)
        if kept or prepared.generation.kind is not Kind.VOICE:
            # Music is not in the history.
            return kept
        now_ms = context.clock.now_ms()
        return [
            TaskRef(item.request_id or "", min(item.date_s * 1000, now_ms), _state(item))
            for item in await self._spoken(context, account, since_ms)
            if answers.is_since(item, since_ms) and requests.is_this(item, prepared, account)
        ]

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        if _ITEM not in task.state:
            return super().open_output(context, account, task, output)
        return context.calls.fetch(
            f"{addresses.base_url(account, requests.OFFICIAL)}{_HISTORY}/{quote(output.location, safe='')}/audio",
            headers=requests.headers_of(account),
            timeout_s=self.terms.fetch_timeout_s,
        )

    async def _spoken(self, context: Context, account: AccountAccess, since_ms: int) -> list[answers.Item]:
        spoken: list[answers.Item] = []
        query = [("page_size", str(_PAGE))]
        for _ in range(_PAGES_OF_A_SEARCH):
            answer = await context.calls.send(
                "GET",
                f"{addresses.base_url(account, requests.OFFICIAL)}{_HISTORY}",
                headers=requests.headers_of(account),
                query=query,
                timeout_s=self.terms.poll_timeout_s,
                limit_bytes=HISTORY_LIMIT_BYTES,
            )
            if answers.is_not_permitted(answer):
                # A key that may speak and not look back. Nobody knows more later.
                break
            if answer.status != 200:
                raise answers.read_error(answer, context.clock.now_ms())
            page, last_id = answers.history(answer)
            spoken += page
            if last_id is None or not any(answers.is_since(item, since_ms) for item in page):
                break
            query = [("page_size", str(_PAGE)), ("start_after_history_item_id", last_id)]
        return spoken

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        answer = await context.calls.send(
            "GET",
            f"{addresses.base_url(account, requests.OFFICIAL)}/v1/user/subscription",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        return answers.subscription(answer)


def _state(item: answers.Item) -> dict[str, str]:
    cost = answers.cost_of(item)
    return {_ITEM: item.id} | ({} if cost is None else {_COST: str(cost)})
