"""The contract `leonardo`: GPT Image 2 images and Seedance 2.0 Fast videos, paid in credits.

Five parts, as every contract has them: wire, inward, outward, errors, routes.
"""

from __future__ import annotations

from services.gateway.contracts.leonardo.routes import CONTRACT

__all__ = ["CONTRACT"]
