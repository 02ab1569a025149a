"""What an adapter says of its provider agrees with its provider's file."""

from __future__ import annotations

import pytest

from services.provider_pool.adapters.elevenlabs.adapter import ElevenLabsAdapter
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.interface import Adapter, Feature, Kind
from services.provider_pool.adapters.model_files import PACKAGED, read_file
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter

ADAPTERS: list[Adapter] = [OpenAIAdapter(), ElevenLabsAdapter(), FalAdapter(), ReplicateAdapter()]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_a_unit_is_worth_the_same_in_the_adapter_and_in_the_file(adapter: Adapter) -> None:
    file = read_file(PACKAGED / f"{adapter.name}.toml")
    assert file.usd_micros_per_unit == adapter.terms.usd_micros_per_unit


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_every_call_that_an_adapter_names_is_there(adapter: Adapter) -> None:
    calls = {
        Feature.LIST: "list_tasks",
        Feature.POLL_MANY: "poll_many",
        Feature.CANCEL: "cancel",
        Feature.UPLOAD: "upload",
        Feature.HINTS: "hint",
    }
    for feature, name in calls.items():
        has = getattr(type(adapter), name) is not getattr(Adapter, name)
        assert has is (feature in adapter.features), name


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_every_model_says_how_long_it_may_take_and_how_long_its_output_lives(adapter: Adapter) -> None:
    for spec in adapter.models():
        assert spec.longest_s > 0
        # What comes in the answer lives here; what lies at a provider does not lie there for ever.
        assert bool(spec.output_lifetime_s) is (adapter.name in {"fal", "replicate"})
        if spec.kind is Kind.VIDEO:
            assert spec.longest_s >= 1800
