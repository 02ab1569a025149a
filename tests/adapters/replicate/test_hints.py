"""Replicate's webhooks: signed after Standard Webhooks with the account's own secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from services.provider_pool.adapters.interface import AuthFailed, Hint
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTER = ReplicateAdapter()
KEY = b"a key of thirty-two bytes, about"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = json.dumps({"id": "rrr4z55ocneqzikepnug6xezpe", "status": "succeeded", "output": "u"}).encode()
OWN = account("replicate", {"api_key": "key-1", "webhook_secret": SECRET})


def signed(body: bytes = BODY, at_s: int = T0_MS // 1000) -> dict[str, str]:
    made = base64.b64encode(hmac.digest(KEY, f"msg_1.{at_s}.".encode() + body, hashlib.sha256)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at_s), "webhook-signature": f"v1,{made}"}


async def test_a_signed_webhook_names_the_prediction_to_ask_about() -> None:
    hint = await ADAPTER.hint(context(ScriptedCalls()), OWN, signed(), BODY)
    assert hint == Hint(("rrr4z55ocneqzikepnug6xezpe",), "msg_1")


async def test_a_forged_old_or_changed_webhook_is_none() -> None:
    lent = context(ScriptedCalls())
    assert await ADAPTER.hint(lent, OWN, signed(), BODY + b" ") is None
    assert await ADAPTER.hint(lent, OWN, signed(at_s=T0_MS // 1000 - 301), BODY) is None
    assert await ADAPTER.hint(lent, OWN, {}, BODY) is None


async def test_a_signed_webhook_that_is_about_nothing_is_none() -> None:
    for body in (b"", b"[]", b'{"id": 5}'):
        assert await ADAPTER.hint(context(ScriptedCalls()), OWN, signed(body), body) is None


async def test_a_secret_that_the_operator_did_not_give_is_asked_for() -> None:
    calls = ScriptedCalls(answer({"key": SECRET}))
    hint = await ADAPTER.hint(context(calls), account("replicate"), signed(), BODY)
    assert hint is not None
    assert calls.only.url == "https://api.replicate.com/v1/webhooks/default/secret"


async def test_without_a_secret_nothing_is_believed() -> None:
    calls = ScriptedCalls(answer({}, 401))
    with pytest.raises(AuthFailed):
        await ADAPTER.hint(context(calls), account("replicate"), signed(), BODY)
