"""OpenAI's images and chat: no task, no list, no webhook, so that what is not kept from the answer is lost and paid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from services.provider_pool.adapters import addresses, remote, synchronous
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Context,
    Feature,
    Generation,
    Kind,
    ModelSpec,
    Prepared,
    ReferenceFile,
    Submission,
    Terms,
)
from services.provider_pool.adapters.openai import answers, prices, requests

OFFICIAL: Final = "https://api.openai.com/v1"

PICTURE_TIMEOUT_S: Final = 300.0
"""A picture of the best quality takes about two minutes, and a connection that is given up too early is paid for."""

TEXT_TIMEOUT_S: Final = 120.0

PICTURE_LIMIT_BYTES: Final = 96 * 1024 * 1024
"""The largest picture, 8.3 million pixels of noise as PNG, in base64; real ones have a tenth of it."""


class OpenAIAdapter(synchronous.SynchronousAdapter):
    """Answers come with the result; the account's `base_url` may be any that takes the same requests."""

    name: ClassVar[str] = "openai"
    account_noun: ClassVar[str] = "an OpenAI account"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.LIST})
    # In doubt, only what was kept here can be found, and it is there at once or never.
    terms: ClassVar[Terms] = Terms(
        submit_timeout_s=PICTURE_TIMEOUT_S, unknown_window_s=15.0, polls_per_second=100.0, poll_burst=200
    )
    addresses: ClassVar[Mapping[str, str]] = {"base_url": OFFICIAL}

    def own_options(self) -> Collection[str]:
        return ("organization", "project", "text_model")

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        remote.check(generation, spec, references)
        return Prepared(generation, spec, requests.body_of(generation, spec), tuple(references))

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        if prepared.spec.kind is Kind.TEXT:
            name, result = "0.txt", await self._text(context, account, prepared, reference)
        else:
            name, result = "0.png", await self._picture(context, account, prepared, reference)
        cost_millis = prices.settled_millis(prepared.spec, result.tokens)
        return await synchronous.keep(context, reference, name, result.content, cost_millis)

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        answer = await context.calls.send(
            "GET",
            f"{addresses.base_url(account, OFFICIAL)}/models",
            headers=requests.headers_of(account),
            timeout_s=self.terms.poll_timeout_s,
        )
        if answer.status != 200:
            raise answers.read_error(answer, context.clock.now_ms())
        return AccountStatus(ok=True)

    async def _picture(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> answers.Result:
        base = addresses.base_url(account, OFFICIAL)
        follows = bool(prepared.references)
        answer = await context.calls.send(
            "POST",
            f"{base}/images/edits" if follows else f"{base}/images/generations",
            headers=requests.headers_of(account, reference),
            json=None if follows else prepared.body,
            form=requests.edit_form(prepared.body, prepared.references) if follows else None,
            timeout_s=PICTURE_TIMEOUT_S,
            limit_bytes=PICTURE_LIMIT_BYTES,
            billable=True,
        )
        if answer.status != 200:
            raise answers.submit_error(answer, context.clock.now_ms())
        return answers.picture(answer)

    async def _text(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> answers.Result:
        answer = await context.calls.send(
            "POST",
            f"{addresses.base_url(account, OFFICIAL)}/chat/completions",
            headers=requests.headers_of(account, reference),
            json=requests.for_account(prepared.body, account),
            timeout_s=TEXT_TIMEOUT_S,
            billable=True,
        )
        if answer.status != 200:
            raise answers.submit_error(answer, context.clock.now_ms())
        return answers.text(answer, prepared.generation.max_words)
