"""Access tokens of users: JWTs that are signed here and believed only together with the user's row."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

import jwt
from jwt.types import Options

from services.chassis.settings import Secret

# One algorithm, named here and never read from the token: "none" and borrowed public keys are refused before anything.
_ALGORITHM: Final = "HS256"
_CLAIMS: Final = ["sub", "iat", "exp", "aud", "ver"]
# Ours have some 250; longer texts need no look inside.
_MAX_CHARACTERS: Final = 1024
# As long as the hash; only where the operator has given none.
_MADE_UP_BYTES: Final = 32


class Claims(NamedTuple):
    """What a token says: whose it is, where, of which version of the user's tokens, and until when."""

    user_id: int
    storefront: str
    version: int
    expires_at_ms: int


class AccessTokens:
    """Signs with the first secret of the ring, believes all of them."""

    def __init__(self, ring: Sequence[Secret], lifetime_s: int) -> None:
        self._ring = tuple(ring) or (Secret(secrets.token_hex(_MADE_UP_BYTES)),)
        self._lifetime_s = lifetime_s

    def issue(self, user_id: int, storefront: str, version: int, now_ms: int) -> tuple[str, int]:
        """A token, and when it ends, in milliseconds."""
        issued_at_s = now_ms // 1000
        expires_at_s = issued_at_s + self._lifetime_s
        claims = {
            "sub": str(user_id),
            "aud": storefront,
            "ver": version,
            "iat": issued_at_s,
            "exp": expires_at_s,
        }
        return jwt.encode(claims, self._ring[0].reveal(), algorithm=_ALGORITHM), expires_at_s * 1000

    def read(self, token: str, now_ms: int) -> Claims | None:
        """What a token says if it is one of ours and not over; None for everything else."""
        if not looks_like_token(token):
            return None
        for secret in self._ring:
            claims = _read(token, secret)
            if claims is not None:
                return claims if now_ms < claims.expires_at_ms else None
        return None


def looks_like_token(text: str) -> bool:
    """Whether this is a JWT rather than an API key: three parts, the first of them a JSON object."""
    return len(text) <= _MAX_CHARACTERS and text.startswith("eyJ") and text.count(".") == 2


def _read(token: str, secret: Secret) -> Claims | None:
    # Time and audience are compared by the caller, who knows the clock and the user.
    options: Options = {
        "require": _CLAIMS,
        "verify_exp": False,
        "verify_iat": False,
        "verify_nbf": False,
        "verify_aud": False,
    }
    try:
        claims = jwt.decode(token, secret.reveal(), algorithms=[_ALGORITHM], options=options)
        user_id, audience, version, expires_at_s = (claims[name] for name in ("sub", "aud", "ver", "exp"))
        return Claims(int(user_id), str(audience), int(version), int(expires_at_s) * 1000)
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
        return None
