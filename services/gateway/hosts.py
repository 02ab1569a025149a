"""Host names that are bound to one storefront: such a host serves its contract and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web

from services.gateway.contract import Contract, Route


class Hosts:
    """Which contract a host name is bound to. Names are compared without port, case and a dot at the end."""

    def __init__(self, contracts: Sequence[Contract], bound: Mapping[str, str]) -> None:
        """bound: host name to storefront. Raises ValueError for a storefront that there is not."""
        by_name = {contract.name: contract for contract in contracts}
        unknown = sorted(set(bound.values()) - by_name.keys())
        if unknown:
            raise ValueError(f"there is no storefront {unknown[0]!r}")
        self._contracts = {_plain(host): by_name[name] for host, name in bound.items()}
        self._addresses: dict[str, str] = {}
        for host, name in bound.items():
            self._addresses.setdefault(name, host)

    def contract_of(self, request: web.BaseRequest) -> Contract | None:
        """The contract that a request's Host header is bound to."""
        if not self._contracts:
            return None
        # Not `request.host`: without the header that looks this machine's own name up, and everybody waits.
        return self._contracts.get(_plain(request.headers.get("Host", "")))

    def open_here(
        self, claims: Sequence[tuple[Contract, Route]], request: web.BaseRequest
    ) -> list[tuple[Contract, Route]]:
        """Those of the claims that the request's host serves."""
        bound = self.contract_of(request)
        return [
            (contract, route)
            for contract, route in claims
            if contract is bound or (bound is None and not route.bound)
        ]

    def own_urls(self, public_url: str) -> dict[str, str]:
        """By name, where customers of every storefront that is bound to a host reach it."""
        return {name: _at_host(public_url, host) for name, host in self._addresses.items()}

    def url_of(self, contract: Contract, public_url: str) -> str:
        """Where customers of a storefront reach it: `public_url`, with the first host that is bound to it."""
        host = self._addresses.get(contract.name)
        return public_url if host is None else _at_host(public_url, host)


def _at_host(public_url: str, host: str) -> str:
    parts = urlsplit(public_url)
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=host + port))


def _plain(host: str) -> str:
    name = host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".").lower()
