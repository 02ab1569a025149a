"""Addresses: credentials go to the account's own provider and to nobody who only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provider_pool.adapters import addresses
from services.provider_pool.adapters.interface import ProtocolViolation
from tests.adapters.scripted import account

BASE = "https://queue.fal.run"


def test_an_account_is_at_the_official_address_unless_its_operator_says_otherwise() -> None:
    assert addresses.base_url(account("fal"), BASE) == BASE
    moved = account("fal", options={"base_url": "http://127.0.0.1:9/fal/queue/"})
    assert addresses.base_url(moved, BASE) == "http://127.0.0.1:9/fal/queue"


@pytest.mark.parametrize(
    "url",
    ["https://api.example.com", "https://api.example.com:8443/v1", "http://127.0.0.1:9/x", "http://[::1]:9"],
)
def test_an_address_is_https_or_on_this_machine(url: str) -> None:
    assert addresses.address_complaint({"base_url": url}, "base_url") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "http://127.0.0.1.example.com",
        "https://user:key@api.example.com",
        "https://api.example.com/?key=1",
        "https://api.example.com/#x",
        "https://api.example.com:port",
        "https://",
        "ftp://api.example.com",
        "https://api.example.com\\@evil.example",
        "https://äpi.example.com",
        "file:///etc/passwd",
        "example",
    ],
)
def test_any_other_address_is_refused_by_the_name_of_its_option(url: str) -> None:
    told = addresses.address_complaint({"rest_url": url}, "base_url", "rest_url")
    assert told is not None
    assert "rest_url" in told
    assert url not in told


@pytest.mark.parametrize(
    "url",
    [
        f"{BASE}/bytedance/seedance-2.0/requests/1/status",
        "https://queue.fal.run:443/owner/app/requests/1?logs=1",
        "https://QUEUE.FAL.RUN/owner/app",
    ],
)
def test_an_address_below_the_account_s_own_is_followed(url: str) -> None:
    assert addresses.own(url, BASE)


@pytest.mark.parametrize(
    "url",
    [
        "https://queue.fal.run.evil.example/owner/app",
        "https://evil.example/queue.fal.run/",
        "http://queue.fal.run/owner/app",
        "https://queue.fal.run:8443/owner/app",
        "https://key@queue.fal.run/owner/app",
        "https://queue.fal.run@evil.example/owner/app",
        "https://queue.fal.run\\.evil.example/owner",
        "//queue.fal.run/owner",
        "https://queue.fal.run/owner/../admin",
        "",
        None,
        7,
        ["https://queue.fal.run/x"],
    ],
)
def test_an_address_elsewhere_is_not_the_provider_s(url: object) -> None:
    with pytest.raises(ProtocolViolation) as violation:
        addresses.own(url, BASE)
    assert "evil" not in str(violation.value)


def test_below_a_path_only_that_path_is_the_provider_s() -> None:
    base = "http://127.0.0.1:9/fal/queue"
    assert addresses.own(f"{base}/owner/app", base) == f"{base}/owner/app"
    for foreign in ("http://127.0.0.1:9/fal/rest/x", "http://127.0.0.1:9/fal/queuex", "http://127.0.0.1:9/"):
        with pytest.raises(ProtocolViolation):
            addresses.own(foreign, base)


@given(text=st.text(max_size=100))
def test_no_text_after_the_host_makes_another_host_the_provider_s(text: str) -> None:
    try:
        followed = addresses.own(f"https://queue.fal.run{text}", BASE)
    except ProtocolViolation:
        return
    assert followed.startswith(("https://queue.fal.run/", "https://queue.fal.run:443/"))
