"""What is the same for all providers that are reached by calls: models in a file, one API key, options, and the last look."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from services.chassis.settings import Secret
from services.provider_pool.adapters.addresses import address_complaint, canonical
from services.provider_pool.adapters.frames import Size
from services.provider_pool.adapters.interface import (
    Adapter,
    Generation,
    InvalidRequest,
    ModelSpec,
    ReferenceFile,
)
from services.provider_pool.adapters.model_files import models_of


class RemoteAdapter(Adapter):
    """`account_noun`: what a sentence to an operator calls one of its accounts, "an OpenAI account"."""

    account_noun: ClassVar[str]

    def __init__(self, models: Sequence[ModelSpec] | None = None) -> None:
        self._models = tuple(models_of(self.name) if models is None else models)

    def models(self) -> Sequence[ModelSpec]:
        return self._models

    def own_options(self) -> Collection[str]:
        """Options of an account beside the addresses."""
        return ()

    def own_complaint(self, options: Mapping[str, str]) -> str | None:
        """What is wrong with the values of these."""
        return None

    def complaint(self, options: Mapping[str, str], secrets: Mapping[str, object]) -> str | None:
        if "api_key" not in secrets:
            return f"{self.account_noun} needs the credential api_key"
        unknown = options.keys() - self.addresses.keys() - set(self.own_options())
        if unknown:
            return f"{self.account_noun} has no option {min(unknown)}"
        return self.own_complaint(options) or address_complaint(options, *self.addresses)

    def identity(self, options: Mapping[str, str], secrets: Mapping[str, Secret]) -> Secret | None:
        """Its key, and where calls with it go if not to the official address: elsewhere, the same key is somebody else's."""
        # Spaces around a key are lost on the way.
        key = secrets["api_key"].reveal().strip() if "api_key" in secrets else ""
        official = canonical(self.addresses["base_url"])
        place = canonical(options.get("base_url") or official)
        return Secret(f"{'' if place == official else place} {key}") if key else None


def check(generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile]) -> None:
    """Raises InvalidRequest where the model cannot make this, or not after these files."""
    if generation.kind is not spec.kind or not spec.capability.accepts(generation):
        raise InvalidRequest(f"{spec.upstream} cannot make this")
    if len(references) != len(generation.references) or not spec.capability.references.suit(references):
        raise InvalidRequest(f"{spec.upstream} needs a fitting file for each reference")


def checked_size(generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile]) -> Size:
    """The size that it will have, of a model whose sizes are listed. Raises InvalidRequest as `check` does."""
    sizes = spec.capability.sizes
    if sizes is None:
        raise InvalidRequest(f"{spec.upstream} cannot make this")
    check(generation, spec, references)
    size = sizes.chosen(generation, references)
    if size is None:
        raise InvalidRequest(f"{spec.upstream} has no such size")
    return size
