"""Every provider that this service works with, and what its adapter is lent for a call."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from services.chassis.clock import Clock
from services.chassis.egress import Egress
from services.chassis.egress_calls import DirectCalls
from services.chassis.egress_places import Places
from services.chassis.settings import SettingsError
from services.provider_pool.adapters.ark.adapter import ArkAdapter
from services.provider_pool.adapters.elevenlabs.adapter import ElevenLabsAdapter
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.http_calls import HttpCalls
from services.provider_pool.adapters.interface import AccountAccess, Adapter, Context, ModelSpec
from services.provider_pool.adapters.leonardo.adapter import LeonardoAdapter
from services.provider_pool.adapters.model_files import ModelFileError, models_of
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from services.provider_pool.adapters.result_files import ResultFiles
from services.provider_pool.adapters.runway.adapter import RunwayAdapter
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.adapters.sandbox.render_farm import default_workers
from services.provider_pool.catalog import Lends
from services.provider_pool.settings import Settings

_FROM_ONE_HOST: Final = 48
"""Outputs fetched at a time from one place: delivery networks of providers, and not the servers of strangers."""


_ADDRESS_CHARACTERS: Final = 8_192
"""Signed addresses of object stores hold a session's whole token, some two thousand characters of it."""


class _Remote(Protocol):
    """An adapter of a provider that is reached by calls, and whose models are in a file."""

    name: str

    def __call__(self, models: tuple[ModelSpec, ...]) -> Adapter: ...


_REMOTE: Final[tuple[_Remote, ...]] = (
    LeonardoAdapter,
    ArkAdapter,
    OpenAIAdapter,
    FalAdapter,
    ReplicateAdapter,
    ElevenLabsAdapter,
    RunwayAdapter,
)


def adapters_of(settings: Settings) -> list[Adapter]:
    """Every provider. Raises SettingsError for a file of the operator's that cannot be used."""
    workers = settings.sandbox_workers or default_workers()
    try:
        remote = [kind(models_of(kind.name, settings.models_folder)) for kind in _REMOTE]
    except ModelFileError as error:
        raise SettingsError(
            [f"ATELIER_POOL_MODELS_FOLDER holds a file that cannot be used: {error}"]
        ) from None
    return [SandboxAdapter(settings.sandbox_folder, workers=workers), *remote]


def results_folder_of(settings: Settings) -> Path:
    """Where results that came in an answer wait: what replicas share already has a place for them."""
    return settings.results_folder or settings.references_folder.with_name("results")


async def lending(
    settings: Settings, adapters: list[Adapter], results: ResultFiles, stack: AsyncExitStack
) -> Lends:
    """What adapters are lent, for as long as `stack` is open. Raises SettingsError for a CA file that is not usable."""
    direct = await stack.enter_async_context(DirectCalls(ca_file=settings.egress_ca_file))
    policy = replace(settings.policy(), url_characters=_ADDRESS_CHARACTERS)
    outputs = Egress(
        policy, ca_file=settings.egress_ca_file, connections=Places(_FROM_ONE_HOST, _FROM_ONE_HOST)
    )
    await stack.enter_async_context(outputs)
    calls = HttpCalls(direct, outputs, output_limit_bytes=settings.media_limit_bytes)
    addresses = {adapter.name: adapter.addresses for adapter in adapters}

    def lends(account: AccountAccess, clock: Clock) -> Context:
        own = addresses.get(account.provider)
        # Of a provider that is reached by no call there is nothing to lend.
        return Context(clock, calls.of(account, own), results) if own else Context(clock)

    return lends
