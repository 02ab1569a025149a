"""fal's webhooks: signed with keys that it publishes, which are kept for a day at most."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from services.provider_pool.adapters.interface import Context, Hint, ProviderError
from services.provider_pool.adapters.signatures import published_key_id, published_keys

KEYS_LIFETIME_S: Final = 86_400.0
"""fal's own bound on how long its keys may be kept."""

FRESH_S: Final = 300.0
"""Keys that were fetched so lately are not asked for again because a signature does not fit: a forger would decide the pace."""

ADDRESSES_LIMIT: Final = 16
"""All accounts share one address but in tests and behind relays."""

_TIMEOUT_S: Final = 10.0
_JWKS_LIMIT_BYTES: Final = 64 * 1024


class _Event(msgspec.Struct):
    request_id: str


@dataclass(frozen=True, slots=True)
class _Keys:
    keys: tuple[bytes, ...]
    fetched_at_s: float


class Webhooks:
    """Verifies webhooks. What it keeps belongs to the provider and to no account."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Keys] = OrderedDict()

    async def hint(
        self, context: Context, rest_url: str, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        """What a webhook is about; None where no key of the provider at this address signed it. Raises ProviderError."""
        try:
            event = msgspec.json.decode(body, type=_Event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        now_ms = context.clock.now_ms()
        known = self._known.get(rest_url)
        age_s = KEYS_LIFETIME_S if known is None else context.clock.monotonic_s() - known.fetched_at_s
        if known is not None and age_s < KEYS_LIFETIME_S:
            delivery_id = published_key_id(known.keys, headers, body, now_ms)
            if delivery_id is not None:
                return Hint((event.request_id,), delivery_id)
        if age_s < FRESH_S:
            return None
        keys = await self._fetched(context, rest_url)
        delivery_id = published_key_id(keys, headers, body, now_ms)
        return None if delivery_id is None else Hint((event.request_id,), delivery_id)

    async def _fetched(self, context: Context, rest_url: str) -> tuple[bytes, ...]:
        answer = await context.calls.send(
            "GET",
            f"{rest_url}/.well-known/jwks.json",
            timeout_s=_TIMEOUT_S,
            limit_bytes=_JWKS_LIMIT_BYTES,
        )
        if answer.status != 200:
            raise ProviderError(f"fal answered {answer.status} for its keys")
        keys = published_keys(answer.json())
        self._known[rest_url] = _Keys(keys, context.clock.monotonic_s())
        self._known.move_to_end(rest_url)
        if len(self._known) > ADDRESSES_LIMIT:
            self._known.popitem(last=False)
        return keys
