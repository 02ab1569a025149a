"""Every model that some provider serves: where, as what, until when, and how long its tasks may run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.provider_pool.adapters.interface import ModelSpec
from services.provider_pool.attempts.patience import Patience
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.pool import Account, AccountState


@dataclass(frozen=True, slots=True)
class Offer:
    """One model at one provider. `accounts` may serve it now; `seen` past tasks taught the patience."""

    provider: str
    spec: ModelSpec
    accounts: int
    patience_ms: int
    seen: int


def offers(catalog: Catalog, accounts: Iterable[Account], patience: Patience) -> list[Offer]:
    """By model, then by provider."""
    active = [account for account in accounts if account.state is AccountState.ACTIVE]
    found = [
        Offer(
            provider,
            spec,
            sum(_may_serve(account, provider, spec.model) for account in active),
            patience.allowed_ms(provider, spec.model),
            patience.seen(provider, spec.model),
        )
        for provider, adapter in catalog.adapters.items()
        for spec in adapter.models()
    ]
    return sorted(found, key=lambda offer: (offer.spec.model, offer.provider))


def _may_serve(account: Account, provider: str, model: str) -> bool:
    return account.provider == provider and (not account.models or model in account.models)
