"""The contract `seedance2pro`: a task API whose models have two levels of names.

Five parts, as every contract has them: wire, inward, outward, errors, routes.
"""

from __future__ import annotations

from services.gateway.contracts.seedance2pro.routes import CONTRACT

__all__ = ["CONTRACT"]
