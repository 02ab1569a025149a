"""Which providers there are and what each can make at what cost: the adapters' data, looked up by model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.provider_pool import errors
from services.provider_pool.adapters.interface import (
    Adapter,
    CostEstimate,
    Generation,
    ModelSpec,
    ReferenceFile,
    Terms,
)


class Catalog:
    """Every adapter of this process by its provider's name, with the terms the operator set for it."""

    def __init__(
        self,
        adapters: Iterable[Adapter],
        *,
        unknown_window_s: float | None = None,
        resubmit_once: frozenset[str] = frozenset(),
    ) -> None:
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._specs = {
            (name, spec.model): spec for name, adapter in self._adapters.items() for spec in adapter.models()
        }
        self._terms = {
            name: _terms(adapter.terms, unknown_window_s, name in resubmit_once)
            for name, adapter in self._adapters.items()
        }

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

    def terms(self, provider: str) -> Terms:
        """How this provider is dealt with. Raises UNKNOWN_PROVIDER."""
        self.adapter(provider)
        return self._terms[provider]

    def spec(self, provider: str, model: str) -> ModelSpec | None:
        """The model at this provider, if it serves it."""
        return self._specs.get((provider, model))

    def models(self, provider: str) -> frozenset[str]:
        """Every model that the provider's adapter serves."""
        return frozenset(model for name, model in self._specs if name == provider)

    def estimate(self, provider: str, generation: Generation) -> CostEstimate:
        """What it costs there; nothing, of a model that is not served any more."""
        spec = self.spec(provider, generation.model)
        return CostEstimate(0, 0) if spec is None else spec.cost.estimate(generation)

    def ceilings(self, generation: Generation) -> dict[str, int]:
        """By provider that can make exactly this: what it may cost there at most."""
        found = {}
        for (provider, model), spec in self._specs.items():
            serves = model == generation.model and spec.kind is generation.kind
            if serves and spec.capability.accepts(generation):
                found[provider] = spec.cost.estimate(generation).ceiling_millis
        return found

    def takes_reference(self, model: str, file: ReferenceFile) -> bool:
        """Whether a provider of the model takes an image of this size, if any takes images: else size is not what is wrong."""
        known = [
            spec.capability.references
            for (_, name), spec in self._specs.items()
            if name == model and spec.capability.references.images
        ]
        return not known or any(takes.suits(file) for takes in known)


def _terms(terms: Terms, unknown_window_s: float | None, resubmit_once: bool) -> Terms:
    window_s = terms.unknown_window_s if unknown_window_s is None else unknown_window_s
    return replace(terms, unknown_window_s=window_s, resubmit_once=terms.resubmit_once or resubmit_once)
