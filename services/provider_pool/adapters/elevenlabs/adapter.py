"""ElevenLabs' speech and music: no task and no list, so that what is not kept from the answer is lost and paid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from services.provider_pool.adapters import addresses, synchronous
from services.provider_pool.adapters.elevenlabs import answers, requests
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Context,
    Feature,
    Generation,
    InvalidRequest,
    ModelSpec,
    Prepared,
    ReferenceFile,
    Submission,
    Terms,
)

SUBMIT_TIMEOUT_S: Final = 300.0
"""Ten minutes of music are composed in about two; long texts are read in less."""

SOUND_LIMIT_BYTES: Final = 96 * 1024 * 1024
"""Ten thousand characters take some twelve minutes to read, as WAV of 24 kHz 35 MB; twice that, and some more."""


class ElevenLabsAdapter(synchronous.SynchronousAdapter):
    """Answers come with the result. What bounds an account is how many requests it may have open."""

    name: ClassVar[str] = "elevenlabs"
    account_noun: ClassVar[str] = "an ElevenLabs account"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.LIST})
    # In doubt, only what was kept here can be found, and it is there at once or never.
    # A credit is what a plan's price is by its credits: 22 dollars for 100,000.
    terms: ClassVar[Terms] = Terms(
        submit_timeout_s=SUBMIT_TIMEOUT_S,
        unknown_window_s=15.0,
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
        return await synchronous.keep(context, reference, name, sound, answers.cost_millis(answer))

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
