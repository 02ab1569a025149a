"""The contract `seedancee2`: Seedance 2.0 videos behind three stable model names.

Five parts, as every contract has them: wire, inward, outward, errors, routes.
"""

from __future__ import annotations

from services.gateway.contracts.seedancee2.routes import CONTRACT

__all__ = ["CONTRACT"]
