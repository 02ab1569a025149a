from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.access_tokens import AccessTokens, looks_like_token
from services.chassis.settings import Secret

FIRST, SECOND = "a" * 32, "b" * 40
NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS // 1000
CLAIMS: dict[str, Any] = {"sub": "17", "aud": "shop", "ver": 3, "iat": NOW_S, "exp": NOW_S + 60}


def tokens(*ring: str) -> AccessTokens:
    return AccessTokens([Secret(one) for one in ring], lifetime_s=60)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_says_whose_it_is_until_it_ends() -> None:
    token, expires_at_ms = tokens(FIRST).issue(17, "shop", 3, NOW_MS)
    assert expires_at_ms == NOW_MS + 60_000
    assert looks_like_token(token)
    assert tokens(FIRST).read(token, NOW_MS + 59_999) == (17, "shop", 3, expires_at_ms)
    assert tokens(FIRST).read(token, NOW_MS + 60_000) is None


def test_a_secret_is_changed_without_signing_anybody_out() -> None:
    old, _ = tokens(FIRST).issue(17, "shop", 3, NOW_MS)
    new, _ = tokens(SECOND, FIRST).issue(17, "shop", 3, NOW_MS)
    assert tokens(SECOND, FIRST).read(old, NOW_MS)
    assert tokens(SECOND).read(new, NOW_MS)
    assert tokens(SECOND).read(old, NOW_MS) is None


def test_without_a_secret_of_the_operator_every_process_has_its_own() -> None:
    token, _ = tokens().issue(17, "shop", 3, NOW_MS)
    assert tokens().read(token, NOW_MS) is None


FORGED = {
    "unsigned": jwt.encode(CLAIMS, "", algorithm="none"),
    "unsigned, in capitals": f"{part({'alg': 'NONE', 'typ': 'JWT'})}.{part(CLAIMS)}.",
    "another algorithm": jwt.encode(CLAIMS, FIRST + FIRST, algorithm="HS512"),
    "another secret": jwt.encode(CLAIMS, SECOND, algorithm="HS256"),
    "an empty secret": jwt.encode(CLAIMS, "c" * 32, algorithm="HS256"),
    "no signature": f"{part({'alg': 'HS256'})}.{part(CLAIMS)}.",
    "a key that it brings along": jwt.encode(
        CLAIMS,
        SECOND,
        algorithm="HS256",
        headers={"jwk": {"kty": "oct", "k": SECOND}, "kid": "../../dev/null"},
    ),
    **{
        f"no {name}": jwt.encode(
            {key: CLAIMS[key] for key in CLAIMS if key != name}, FIRST, algorithm="HS256"
        )
        for name in CLAIMS
    },
    "a user who is no number": jwt.encode({**CLAIMS, "sub": "everybody"}, FIRST, algorithm="HS256"),
    "an end that is no number": jwt.encode({**CLAIMS, "exp": "tomorrow"}, FIRST, algorithm="HS256"),
    "an end that is infinite": f"{part({'alg': 'HS256'})}.{part({**CLAIMS, 'exp': 1e999})}.x",
    "a long one": jwt.encode({**CLAIMS, "more": "x" * 1_000_000}, FIRST, algorithm="HS256"),
    "an array": f"{part({'alg': 'HS256'})}.{part([1])}.x",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
def test_a_forged_token_says_nothing(token: str) -> None:
    assert tokens(FIRST).read(token, NOW_MS) is None


@given(st.one_of(st.text(max_size=100), st.text(max_size=100).map(lambda tail: f"eyJ{tail}.{tail}.")))
def test_any_text_can_be_asked_about(text: str) -> None:
    assert tokens(FIRST).read(text, NOW_MS) is None


def test_an_api_key_does_not_look_like_a_token() -> None:
    assert not looks_like_token("il_live_" + "a" * 38)
