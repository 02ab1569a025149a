"""ElevenLabs' speech and music: no task and no list, so that what is not kept from the answer is lost and paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from services.provider_pool.adapters.model_files import models_of

SUBMIT_TIMEOUT_S: Final = 300.0
"""Ten minutes of music are composed in about two; long texts are read in less."""

SOUND_LIMIT_BYTES: Final = 96 * 1024 * 1024
"""Ten thousand characters take some twelve minutes to read, as WAV of 24 kHz 35 MB; twice that, and some more."""

_OPTIONS: Final = frozenset({"base_url"})


class ElevenLabsAdapter(synchronous.SynchronousAdapter):
    """Answers come with the result. What bounds an account is how many requests it may have open."""

    name: ClassVar[str] = "elevenlabs"
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

    def __init__(self, models: Sequence[ModelSpec] | None = None) -> None:
        self._models = tuple(models_of(self.name) if models is None else models)

    def models(self) -> Sequence[ModelSpec]:
        return self._models

    def complaint(self, options: Mapping[str, str], secrets: Mapping[str, object]) -> str | None:
        if "api_key" not in secrets:
            return "an ElevenLabs account needs the credential api_key"
        voices = {f"voice_{name}" for spec in self.models() for name in spec.capability.voices}
        unknown = options.keys() - _OPTIONS - voices
        if unknown:
            return f"an ElevenLabs account has no option {min(unknown)}"
        return addresses.address_complaint(options, "base_url")

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
