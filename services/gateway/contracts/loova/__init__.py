"""The contract `loova`: Seedance 2.0 videos as tasks, every answer in one envelope.

Five parts, as every contract has them: wire, inward, outward, errors, routes.
"""

from __future__ import annotations

from services.gateway.contracts.loova.routes import CONTRACT

__all__ = ["CONTRACT"]
