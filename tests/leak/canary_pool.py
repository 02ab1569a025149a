"""`python -m tests.leak.canary_pool`: the provider pool as it always runs, with one provider more."""

from __future__ import annotations

import runpy

from services.provider_pool import providers
from services.provider_pool.adapters.interface import Adapter
from services.provider_pool.settings import Settings
from tests.leak.canary_adapter import CanaryAdapter

_plain = providers.adapters_of


def _with_canary(settings: Settings) -> list[Adapter]:
    return [*_plain(settings), CanaryAdapter(settings.sandbox_folder / "canary", workers=1)]


if __name__ == "__main__":
    providers.adapters_of = _with_canary
    runpy.run_module("services.provider_pool", run_name="__main__", alter_sys=True)
