"""Webhooks of providers: what is signed is believed, what is a sign different is not, and nothing hostile raises."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.settings import Secret
from services.provider_pool.adapters import signatures
from tests.clocks import T0_MS

NOW_S = T0_MS // 1000
BODY = b'{"id":"rrr4z55ocneqzikepnug6xezpe","status":"succeeded"}'
KEY = b"a key of thirty-two bytes, about"
SECRET = Secret("whsec_" + base64.b64encode(KEY).decode())
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = SIGNER.public_key().public_bytes_raw()

header_values = st.text(max_size=300)


def standard(body: bytes = BODY, at_s: int = NOW_S, key: bytes = KEY) -> dict[str, str]:
    signed = f"msg_1.{at_s}.".encode() + body
    made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at_s), "webhook-signature": f"v1,{made}"}


def published(body: bytes = BODY, at_s: int = NOW_S) -> dict[str, str]:
    signed = f"req_1\nuser_1\n{at_s}\n{hashlib.sha256(body).hexdigest()}".encode()
    return {
        "x-fal-webhook-request-id": "req_1",
        "x-fal-webhook-user-id": "user_1",
        "x-fal-webhook-timestamp": str(at_s),
        "x-fal-webhook-signature": SIGNER.sign(signed).hex(),
    }


def jwk(key: bytes = PUBLIC) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": base64.urlsafe_b64encode(key).decode().rstrip("="),
    }


def test_a_delivery_signed_with_the_account_s_secret_is_known_by_its_id() -> None:
    assert signatures.standard_id(SECRET, standard(), BODY, T0_MS) == "msg_1"


def test_the_example_of_the_standard_s_own_specification_is_accepted() -> None:
    secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert signatures.standard_id(secret, headers, body, 1614265330_000) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_of_several_signatures_one_that_fits_is_enough() -> None:
    headers = standard()
    headers["webhook-signature"] = f"v1,AAAA v1a,BBBB {headers['webhook-signature']}"
    assert signatures.standard_id(SECRET, headers, BODY, T0_MS) == "msg_1"


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(NOW_S + 1)},
        {"webhook-signature": "v1,"},
        {"webhook-signature": ""},
        {"webhook-id": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "9" * 40},
    ],
)
def test_a_delivery_that_was_changed_is_nobody_s(change: dict[str, str]) -> None:
    assert signatures.standard_id(SECRET, standard() | change, BODY, T0_MS) is None


def test_a_body_that_was_changed_is_nobody_s() -> None:
    assert signatures.standard_id(SECRET, standard(), BODY + b" ", T0_MS) is None
    assert signatures.published_key_id([PUBLIC], published(), BODY + b" ", T0_MS) is None


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***", "no prefix", "whsec_é"])
def test_a_secret_that_is_none_signs_nothing(secret: str) -> None:
    assert signatures.standard_id(Secret(secret), standard(key=b""), BODY, T0_MS) is None


@pytest.mark.parametrize(("off_s", "believed"), [(300, True), (-300, True), (302, False), (-302, False)])
def test_an_old_or_early_delivery_is_a_repeated_or_forged_one(off_s: int, believed: bool) -> None:
    at_s = NOW_S + off_s
    assert (signatures.standard_id(SECRET, standard(at_s=at_s), BODY, T0_MS) is not None) is believed
    told = signatures.published_key_id([PUBLIC], published(at_s=at_s), BODY, T0_MS)
    assert (told is not None) is believed


def test_a_published_key_proves_a_delivery_also_when_it_is_not_the_first_of_them() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    assert signatures.published_key_id([other, PUBLIC], published(), BODY, T0_MS) == "req_1"
    assert signatures.published_key_id([other], published(), BODY, T0_MS) is None


@pytest.mark.parametrize("name", ["request-id", "user-id", "timestamp", "signature"])
def test_every_header_is_part_of_what_is_signed(name: str) -> None:
    headers = published()
    changed = {f"x-fal-webhook-{name}": {"timestamp": str(NOW_S + 1), "signature": "00" * 64}.get(name, "x")}
    assert signatures.published_key_id([PUBLIC], headers | changed, BODY, T0_MS) is None
    assert signatures.published_key_id([PUBLIC], headers | dict.fromkeys(changed, ""), BODY, T0_MS) is None


def test_keys_are_read_from_a_key_set_and_what_is_no_such_key_is_passed_over() -> None:
    keys = [{"kty": "RSA"}, "text", None, jwk(b"short"), {**jwk(), "x": 5}, {**jwk(), "x": "é"}, jwk()]
    assert signatures.published_keys({"keys": keys}) == (PUBLIC,)
    oddities: list[object] = [None, [], {}, {"keys": {}}, "keys"]
    for odd in oddities:
        assert signatures.published_keys(odd) == ()


def test_no_more_keys_are_tried_than_a_provider_needs() -> None:
    assert len(signatures.published_keys({"keys": [jwk()] * 1000})) == signatures.KEYS_LIMIT


@given(delivery=header_values, timestamp=header_values, signature=header_values, body=st.binary(max_size=200))
def test_no_header_of_a_forger_s_is_believed_or_raises(
    delivery: str, timestamp: str, signature: str, body: bytes
) -> None:
    headers = {
        "webhook-id": delivery,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature,
        "x-fal-webhook-request-id": delivery,
        "x-fal-webhook-user-id": delivery,
        "x-fal-webhook-timestamp": timestamp,
        "x-fal-webhook-signature": signature,
    }
    assert signatures.standard_id(SECRET, headers, body, T0_MS) is None
    assert signatures.published_key_id([PUBLIC], headers, body, T0_MS) is None


@given(body=st.binary(max_size=500), at=st.integers(0, 599), flipped=st.integers(0, 511))
def test_every_body_is_signed_and_no_flipped_bit_of_its_signature_is_accepted(
    body: bytes, at: int, flipped: int
) -> None:
    at_s = NOW_S - 300 + at
    headers = published(body, at_s)
    assert signatures.published_key_id([PUBLIC], headers, body, T0_MS) == "req_1"
    signature = bytearray.fromhex(headers["x-fal-webhook-signature"])
    signature[flipped // 8] ^= 1 << flipped % 8
    headers["x-fal-webhook-signature"] = signature.hex()
    assert signatures.published_key_id([PUBLIC], headers, body, T0_MS) is None
