"""The public contracts. The first one speaks for paths that nobody claims."""

from __future__ import annotations

from services.gateway.contracts import leonardo

CONTRACTS = (leonardo.CONTRACT,)
