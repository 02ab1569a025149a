"""Which routes there are at a path, whatever their methods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from services.gateway.contract import Contract, Route

_PART: Final = re.compile(r"\\{\w+\\}")


class Paths:
    """Every path of the contracts, with the routes that claim it."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self._spelled_out: dict[str, list[tuple[Contract, Route]]] = {}
        self._varying: list[tuple[re.Pattern[str], tuple[Contract, Route]]] = []
        for contract in contracts:
            for route in contract.routes:
                if "{" in route.path:
                    pattern = re.compile(_PART.sub("[^/{}]+", re.escape(route.path)))
                    self._varying.append((pattern, (contract, route)))
                else:
                    self._spelled_out.setdefault(route.path, []).append((contract, route))

    def claims_on(self, path: str) -> list[tuple[Contract, Route]]:
        """The routes at `path`. One that is spelled out is not also the one with an id in its place."""
        spelled_out = self._spelled_out.get(path)
        return spelled_out or [claim for pattern, claim in self._varying if pattern.fullmatch(path)]


def methods_of(claims: Iterable[tuple[Contract, Route]]) -> set[str]:
    """What these routes answer, for an Allow header."""
    methods = {route.method for _, route in claims}
    return methods | {"HEAD"} if "GET" in methods else methods
