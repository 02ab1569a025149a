from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from services.chassis.settings import Secret
from services.jobs.webhooks import signatures
from services.jobs.webhooks.signatures import LegacySignature

BODY = '{"status":"completed","prompt":"ü"}'.encode()
LEGACY = LegacySignature("X-Seedancee2-Event", "X-Seedancee2-Signature", "done", "failed")


def now_s() -> int:
    return int(time.time())


def verified(secret: Secret, headers: dict[str, str], body: bytes = BODY) -> object:
    return Webhook(secret.reveal()).verify(body.decode(), headers)


def test_the_standard_s_own_library_accepts_it() -> None:
    secret = signatures.new_secret()
    verified(secret, signatures.headers([secret], "whd_1", now_s(), BODY))


def test_while_a_secret_is_replaced_both_are_accepted_and_no_third() -> None:
    old, new, other = (signatures.new_secret() for _ in range(3))
    headers = signatures.headers([new, old], "whd_1", now_s(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    verified(old, headers)
    verified(new, headers)
    with pytest.raises(WebhookVerificationError):
        verified(other, headers)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp"])
def test_id_and_time_are_signed_as_well_as_the_body(changed: str) -> None:
    secret, sent_s = signatures.new_secret(), now_s()
    headers = signatures.headers([secret], "whd_1", sent_s, BODY)
    others = {"webhook-id": "whd_2", "webhook-timestamp": str(sent_s - 1)}
    with pytest.raises(WebhookVerificationError):
        verified(secret, headers | {changed: others[changed]})
    with pytest.raises(WebhookVerificationError):
        verified(secret, headers, BODY + b" ")


def test_a_secret_is_32_random_bytes() -> None:
    first, second = signatures.new_secret(), signatures.new_secret()
    assert first != second
    assert len(base64.b64decode(first.reveal().removeprefix("whsec_"))) == 32


def test_the_storefront_s_own_signature_is_keyed_with_the_whole_secret_and_timed_by_the_attempt() -> None:
    secret = signatures.new_secret()
    headers = signatures.headers([secret], "whd_1", 1_770_000_000, BODY, legacy=LEGACY)
    expected = hmac.new(secret.reveal().encode(), b"1770000000." + BODY, hashlib.sha256).hexdigest()
    assert headers["X-Seedancee2-Signature"] == f"t=1770000000,v1={expected}"
    assert headers["X-Seedancee2-Event"] == "done"
    failed = signatures.headers([secret], "whd_1", 1, BODY, legacy=LEGACY, completed=False)
    assert failed["X-Seedancee2-Event"] == "failed"


def test_both_secrets_sign_in_the_storefront_s_own_way_too() -> None:
    old, new = signatures.new_secret(), signatures.new_secret()
    parts = signatures.headers([new, old], "whd_1", 5, BODY, legacy=LEGACY)["X-Seedancee2-Signature"].split(
        ","
    )
    assert parts[0] == "t=5"
    assert [part.removeprefix("v1=") for part in parts[1:]] == [
        signatures.legacy_signature(secret, 5, BODY) for secret in (new, old)
    ]


@pytest.mark.parametrize("text", ["whsec_", "", "whsec", "abc", "whsec_not base64!"])
def test_what_is_no_secret_signs_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signatures.standard_signature(Secret(text), "a", 1, b"")
