"""Which providers there are and what each can make at what cost: the adapters' data, looked up by model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from services.chassis.clock import Clock
from services.provider_pool import errors
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Adapter,
    Context,
    CostEstimate,
    Generation,
    ModelSpec,
    ReferenceFile,
    Terms,
)
from services.provider_pool.selection.market import Market, Provider, band_of
from services.provider_pool.selection.pace import pace_of
from services.provider_pool.selection.pool import TEST_PROVIDER

PRICE_BAND = 0.1
"""Accounts that are a tenth dearer than the cheapest are as good: below that, rules of cost are no more exact themselves."""

Lends: TypeAlias = Callable[[AccountAccess, Clock], Context]
"""What an account's adapter may use while it makes one call."""


def lends_a_clock(account: AccountAccess, clock: Clock) -> Context:
    """For providers that are reached by no call, as the sandbox."""
    return Context(clock)


class Catalog:
    """Every adapter of this process by its provider's name, with the terms the operator set for it."""

    def __init__(
        self,
        adapters: Iterable[Adapter],
        *,
        unknown_window_s: float | None = None,
        resubmit_once: frozenset[str] = frozenset(),
        lends: Lends = lends_a_clock,
        price_band: float = PRICE_BAND,
    ) -> None:
        self._lends = lends
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._specs = {
            (name, spec.model): spec for name, adapter in self._adapters.items() for spec in adapter.models()
        }
        self._terms = {
            name: _terms(adapter.terms, unknown_window_s, name in resubmit_once)
            for name, adapter in self._adapters.items()
        }
        # Looked up for every lease.
        self._offers: dict[str, list[tuple[str, ModelSpec]]] = {}
        for (provider, model), spec in self._specs.items():
            self._offers.setdefault(model, []).append((provider, spec))
        limits = {name: spec.concurrency_limit for name, spec in self._specs.items()}
        self.market = Market(
            {name: _provider(terms) for name, terms in self._terms.items()},
            {name: limit for name, limit in limits.items() if limit},
            band_of(price_band),
        )

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """By provider."""
        return self._adapters

    @property
    def longest_submit_s(self) -> float:
        """The longest that any provider gets to answer a submission."""
        return max((terms.submit_timeout_s for terms in self._terms.values()), default=0.0)

    def adapter(self, provider: str) -> Adapter:
        """Raises UNKNOWN_PROVIDER."""
        adapter = self._adapters.get(provider)
        if adapter is None:
            raise errors.unknown_provider(provider)
        return adapter

    def context(self, account: AccountAccess, clock: Clock) -> Context:
        """What the account's adapter is lent for one call."""
        return self._lends(account, clock)

    def terms(self, provider: str) -> Terms:
        """How this provider is dealt with. Raises UNKNOWN_PROVIDER."""
        self.adapter(provider)
        return self._terms[provider]

    def spec(self, provider: str, model: str) -> ModelSpec | None:
        """The model at this provider, if it serves it."""
        return self._specs.get((provider, model))

    @property
    def longest_s(self) -> dict[tuple[str, str], int]:
        """By provider and model, of those that have a limit of their own: how long a task may run."""
        return {pair: spec.longest_s for pair, spec in self._specs.items() if spec.longest_s}

    def models(self, provider: str) -> frozenset[str]:
        """Every model that the provider's adapter serves."""
        return frozenset(model for name, model in self._specs if name == provider)

    def on_offer(self, now_ms: int) -> dict[str, list[str]]:
        """By provider, what may be given to it now: every model that it has not retired."""
        found: dict[str, list[str]] = {name: [] for name in self._adapters}
        for (provider, model), spec in self._specs.items():
            if not _is_retired(spec, now_ms):
                found[provider].append(model)
        return found

    def estimate(self, provider: str, generation: Generation) -> CostEstimate:
        """What it costs there; nothing, of a model that is not served any more."""
        spec = self.spec(provider, generation.model)
        return CostEstimate(0, 0) if spec is None else spec.cost.estimate(generation)

    def ceilings(self, generation: Generation, now_ms: int) -> dict[str, int]:
        """By provider that can make exactly this and still serves the model: what it may cost there at most."""
        return {name: cost.ceiling_millis for name, cost in self.estimates(generation, now_ms).items()}

    def estimates(self, generation: Generation, now_ms: int) -> dict[str, CostEstimate]:
        """The same, with what it is expected to cost."""
        found = {}
        for provider, spec in self._offers.get(generation.model, ()):
            serves = spec.kind is generation.kind and not _is_retired(spec, now_ms)
            if serves and spec.capability.accepts(generation):
                found[provider] = spec.cost.estimate(generation)
        return found

    def takes_reference(self, model: str, file: ReferenceFile) -> bool:
        """Whether a provider of the model takes an image of this size, if any takes images: else size is not what is wrong."""
        known = [
            spec.capability.references
            for _, spec in self._offers.get(model, ())
            if spec.capability.references.images
        ]
        return not known or any(takes.suits(file) for takes in known)

    def suits_elsewhere(self, provider: str, generation: Generation, files: Sequence[ReferenceFile]) -> bool:
        """Whether another provider of the model takes these files; the one for test jobs is no other for live ones."""
        others = [
            spec.capability
            for name, spec in self._offers.get(generation.model, ())
            if name not in (provider, TEST_PROVIDER)
        ]
        return any(takes.accepts(generation) and takes.references.suit(files) for takes in others)


def _is_retired(spec: ModelSpec, now_ms: int) -> bool:
    return 0 < spec.retires_at_ms <= now_ms


def _provider(terms: Terms) -> Provider:
    return Provider(terms.tasks_at_once, pace_of(terms.submits_per_minute), terms.usd_micros_per_unit)


def _terms(terms: Terms, unknown_window_s: float | None, resubmit_once: bool) -> Terms:
    window_s = terms.unknown_window_s if unknown_window_s is None else unknown_window_s
    return replace(terms, unknown_window_s=window_s, resubmit_once=terms.resubmit_once or resubmit_once)
