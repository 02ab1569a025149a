from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing import emails


@pytest.mark.parametrize(
    ("text", "written", "address"),
    [
        ("Ann@Example.COM", "Ann@example.com", "ann@example.com"),
        (" ann+news@example.com. ", "ann+news@example.com", "ann+news@example.com"),
        ("o'neil@example.co.uk", "o'neil@example.co.uk", "o'neil@example.co.uk"),
        ("İ@example.com", "İ@example.com", "i\u0307@example.com"),
        (
            "δοκιμή@παράδειγμα.δοκιμή",
            "δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp",
            "δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp",
        ),
    ],
)
def test_an_address_is_kept_as_it_was_typed_and_compared_without_case(
    text: str, written: str, address: str
) -> None:
    assert emails.read(text) == (written, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "ann@-example.com",
        "ann@exa_mple.com",
        "ann@example..com",
        "ann@[127.0.0.1]",
        '"ann smith"@example.com',
        "ann smith@example.com",
        ".ann@example.com",
        "ann.@example.com",
        "a..n@example.com",
        "ann@example.com\r\nBcc: ben@example.com",
        "ann\n@example.com",
        "ann\x00@example.com",
        "ann\u202e@example.com",
        "ann@example.com, ben@example.com",
        "<ann@example.com>",
        "ann@ben@example.com",
        "=?utf-8?q?ben?=@example.com",
        "=?utf-8?q?ben=40example.org=2C?=@example.com",
        "=?utf-8?q?a=0d=0aBcc=3a_ben=40example.org?=@example.com",
        "ann@" + "a" * 64 + ".com",
        "a" * 65 + "@example.com",
        "a" * 1_000_000 + "@example.com",
        "ann@" + "a." * 500_000 + "com",
    ],
)
def test_what_no_mail_can_be_sent_to_is_no_address(text: str) -> None:
    assert emails.read(text) is None


@given(
    st.one_of(
        st.text(max_size=300),
        st.emails(),
        st.from_regex(r"[^@\n]{1,10}@[a-z]{1,9}\.[a-z]{2}", fullmatch=True),
    )
)
def test_reading_an_address_again_changes_nothing(text: str) -> None:
    email = emails.read(text)
    if email is None:
        return
    assert emails.read(email.written) == email
    again = emails.read(email.address)
    assert again is not None
    assert again.address == email.address
    assert email.written.isprintable()
    assert len(email.written.encode()) <= emails.MAX_ADDRESS_OCTETS


@given(st.emails())
def test_every_common_address_is_taken(text: str) -> None:
    assert emails.read(text) is not None or len(text.partition("@")[0]) > emails.MAX_LOCAL_OCTETS
