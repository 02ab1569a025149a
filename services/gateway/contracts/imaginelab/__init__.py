"""The contract `imaginelab`: images, videos, voice, music, infographics and text, for people who sign up by themselves.

Five parts, as every contract has them: wire, inward, outward, errors, routes. Accounts and what generations may be set
to have files of their own, and so do their routes.
"""

from __future__ import annotations

from services.gateway.contracts.imaginelab.routes import CONTRACT

__all__ = ["CONTRACT"]
