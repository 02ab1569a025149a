"""API keys of a customer called ann, for tests."""

from __future__ import annotations

from services.billing.keys import Key, KeyRules
from services.billing.spending import UNLIMITED, SpendLimits


def key(
    key_id: str, limits: SpendLimits = UNLIMITED, *, mode: str = "live", rules: KeyRules | None = None
) -> Key:
    chosen = rules or KeyRules(spend_limits=limits)
    return Key(key_id, "ann", mode, "", "s_live_abcd", 1, 0, 0, 0, chosen)
