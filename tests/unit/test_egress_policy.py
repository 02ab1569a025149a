from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.egress_address import address_rule
from services.chassis.egress_policy import (
    POLICY_RULES,
    AllowedTarget,
    EgressCaSettings,
    EgressPolicy,
    EgressRefused,
    EgressSettings,
)
from services.chassis.settings import SettingsError, load


def policy(allow: str = "", deny: str = "", ports: str = "") -> EgressPolicy:
    environ = {"ATELIER_EGRESS_ALLOW": allow, "ATELIER_EGRESS_DENY": deny, "ATELIER_EGRESS_PORTS": ports}
    return load(EgressSettings, environ).policy()


def verdict(policy: EgressPolicy, address: str, port: int = 443, scheme: str = "https") -> str | None:
    try:
        policy.check_address(ip_address(address), port, scheme)
    except EgressRefused as refused:
        return refused.rule
    return None


def test_without_settings_public_addresses_are_taken_on_443_with_tls_only() -> None:
    assert policy() == EgressPolicy()
    assert verdict(policy(), "1.1.1.1") is None
    assert verdict(policy(), "2606:4700::1111") is None
    assert verdict(policy(), "1.1.1.1", 8443) == "port"
    assert verdict(policy(), "1.1.1.1", 443, "http") == "scheme"
    assert verdict(policy(), "127.0.0.1") == "loopback"


def test_an_allowed_pair_is_taken_whatever_the_table_the_scheme_and_the_denied_ranges_say() -> None:
    allowing = policy(allow="127.0.0.1/32:8443, 10.0.0.0/8:80", deny="127.0.0.0/8,10.0.0.0/8,::/0")
    assert verdict(allowing, "127.0.0.1", 8443) is None
    assert verdict(allowing, "127.0.0.1", 8443, "http") is None
    assert verdict(allowing, "::ffff:127.0.0.1", 8443) is None
    assert verdict(allowing, "10.255.255.255", 80, "http") is None


def test_an_allowed_pair_says_nothing_of_other_addresses_and_other_ports() -> None:
    allowing = policy(allow="127.0.0.1/32:8443")
    assert verdict(allowing, "127.0.0.2", 8443) == "loopback"
    assert verdict(allowing, "127.0.0.1", 443) == "loopback"
    assert verdict(allowing, "1.1.1.1", 8443) == "port"
    assert verdict(allowing, "1.1.1.1", 8443, "http") == "scheme"
    assert verdict(allowing, "1.1.1.1", 443) is None


def test_a_zone_id_is_refused_even_where_its_address_is_allowed() -> None:
    assert verdict(policy(allow="[fe80::/10]:443"), "fe80::1") is None
    assert verdict(policy(allow="[fe80::/10]:443"), "fe80::1%eth0") == "zone_id"


def test_a_denied_range_is_refused_in_its_mapped_spelling_too() -> None:
    denying = policy(deny="1.1.1.0/24, 2606:4700::/32")
    assert verdict(denying, "1.1.1.255") == "denied"
    assert verdict(denying, "::ffff:1.1.1.255") == "denied"
    assert verdict(denying, "2606:4700::1111") == "denied"
    assert verdict(denying, "1.1.2.0") is None


def test_extra_ports_come_on_top_of_443() -> None:
    assert verdict(policy(ports="8443, 9443"), "1.1.1.1", 8443) is None
    assert verdict(policy(ports="8443, 9443"), "1.1.1.1", 443) is None
    assert verdict(policy(ports="8443"), "1.1.1.1", 8443, "http") == "scheme"
    assert verdict(policy(ports="8443"), "10.0.0.1", 8443) == "private"


@given(st.ip_addresses(), st.sampled_from([80, 443, 8443]), st.sampled_from(["http", "https"]))
def test_without_pairs_nothing_passes_that_the_table_refuses(address: object, port: int, scheme: str) -> None:
    rule = verdict(policy(ports="8443"), str(address), port, scheme)
    assert rule is None or rule in POLICY_RULES
    if rule is None:
        assert address_rule(ip_address(str(address))) is None
        assert (scheme, port) in {("https", 443), ("https", 8443)}


@pytest.mark.parametrize(
    ("text", "network", "port"),
    [
        ("127.0.0.1/32:8443", "127.0.0.1/32", 8443),
        ("127.0.0.1:8443", "127.0.0.1/32", 8443),
        ("10.0.0.0/8:80", "10.0.0.0/8", 80),
        ("10.0.0.0/255.0.0.0:80", "10.0.0.0/8", 80),
        ("0.0.0.0/0:443", "0.0.0.0/0", 443),
        ("[fd00::/8]:443", "fd00::/8", 443),
        ("[fd00::]/8:443", "fd00::/8", 443),
        ("fd00::/8:443", "fd00::/8", 443),
        ("[::1]:443", "::1/128", 443),
        ("[::ffff:10.0.0.0/104]:443", "10.0.0.0/8", 443),
        ("[::ffff:10.0.0.1]:443", "10.0.0.1/32", 443),
    ],
)
def test_a_pair_is_a_range_or_an_address_and_a_port(text: str, network: str, port: int) -> None:
    assert policy(allow=text).allow == (AllowedTarget(ip_network(network), port),)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "10.0.0.0/8",
            "10.0.0.0/8:",
            ":443",
            "10.0.0.0/8:0",
            "10.0.0.0/8:65536",
            "10.0.0.0/8:https",
            "::1:443",
        ),
        *("10.0.0.1/8:443", "10.0.0.0/33:443", "[::1:443", "::1]:443", "[::1]x:443", "[fe80::%eth0/10]:443"),
        *(
            "example.com:443",
            "[]:443",
            "10.0.0.0/8:\u0664\u0664\u0663",
            "10.0.0/24:443",
            "*:443",
            "10.0.0.1/8/8:80",
        ),
        *("10.0.0.0/8:443;10.1.0.0/16:443", "10.0.0.0/8:+443", "010.0.0.1:443", "[fd00::/8]/8:443"),
    ],
)
def test_a_pair_that_is_none_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        policy(allow=f"127.0.0.1:8443,{text}")
    (fault,) = refusal.value.faults
    assert fault.startswith("ATELIER_EGRESS_ALLOW holds ")


def test_every_fault_of_the_settings_is_listed_at_once() -> None:
    with pytest.raises(SettingsError) as refusal:
        policy(allow="x", deny="1.1.1.1/24", ports="443,0")
    assert [fault.split()[0] for fault in refusal.value.faults] == [
        "ATELIER_EGRESS_ALLOW",
        "ATELIER_EGRESS_DENY",
        "ATELIER_EGRESS_PORTS",
    ]


@given(st.text(max_size=40))
def test_no_text_breaks_a_setting_in_another_way_than_with_a_sentence(text: str) -> None:
    for setting in ("allow", "deny", "ports"):
        with contextlib.suppress(SettingsError):
            policy(**{setting: text})


def test_commas_and_blanks_around_entries_do_not_matter() -> None:
    assert policy(deny=" 1.1.1.0/24 ,, 8.8.8.8,").deny == (ip_network("1.1.1.0/24"), ip_network("8.8.8.8/32"))


def test_the_certificates_are_a_file_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    name = "ATELIER_EGRESS_CA_FILE"
    assert load(EgressCaSettings, {}).egress_ca_file is None
    assert load(EgressCaSettings, {name: str(tmp_path / "ca.pem")}).egress_ca_file == tmp_path / "ca.pem"
    for path in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(SettingsError, match="ATELIER_EGRESS_CA_FILE names a file that cannot be read"):
            load(EgressCaSettings, {name: str(path)})
