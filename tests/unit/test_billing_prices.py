from __future__ import annotations

from pathlib import Path

import pytest

from services.billing import prices
from services.billing.operations import Quote
from services.billing.prices import Limits
from services.billing.settings import storefronts
from services.chassis.errors import ServiceError
from services.chassis.settings import SettingsError

GOOD = """
version = "7"
title = "Shop"
[keys]
live_prefix = "s_live_"
test_prefix = "s_test_"
[limits]
requests_per_minute = 1
running_jobs = 2
queued_jobs = 3
[test_wallet]
credits = 5
[[prices]]
sku = "image"
title = "An image"
unit = "image"
credits = 0.125
[[prices]]
sku = "free"
title = "Nothing"
unit = "nothing"
credits = 0
"""


def faults(content: str, name: str = "shop") -> list[str]:
    with pytest.raises(SettingsError) as refused:
        prices.parse({name: content})
    return refused.value.faults


def test_a_price_list_is_read_exactly() -> None:
    shop = prices.parse({"shop": GOOD}).named("shop")
    assert (shop.live_prefix, shop.test_prefix, shop.title) == ("s_live_", "s_test_", "Shop")
    assert (shop.limits, shop.play_credit_millis) == (Limits(1, 2, 3), 5_000)
    assert shop.quote("image", 3) == Quote(375, shop.version)
    assert shop.quote("free", 2**32 - 1) == Quote(0, shop.version)
    assert shop.quote("gold", 1) is None


def test_the_version_is_the_declared_one_and_the_contents() -> None:
    version = prices.parse({"shop": GOOD}).named("shop").version
    assert version.startswith("7+")
    assert prices.parse({"shop": GOOD + "# a comment"}).named("shop").version == version
    changed = GOOD.replace("0.125", "0.126")
    assert prices.parse({"shop": changed}).named("shop").version not in {version, "7+"}


def test_the_shipped_price_lists_are_good(tmp_path: Path) -> None:
    leonardo = storefronts(tmp_path).named("leonardo")
    expected = {"image.low": 20_000, "image.medium": 60_000, "video.second": 600_000}
    assert {sku: price.unit_price_millis for sku, price in leonardo.prices.items()} == expected
    assert leonardo.key_prefix("live") == "ak_live_"
    assert leonardo.key_prefix("test") == "ak_test_"
    assert leonardo.play_credit_millis == 1_000_000_000


def test_adding_a_storefront_is_adding_a_file(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(GOOD)
    (tmp_path / "without").mkdir()
    before = storefronts(tmp_path / "without").key_prefixes()
    both = storefronts(tmp_path)
    assert both.named("shop").quote("image", 8) == Quote(1_000, both.named("shop").version)
    assert both.key_prefixes() == before | {"s_live_", "s_test_"}


def test_an_unknown_storefront_is_named() -> None:
    with pytest.raises(ServiceError, match="UNKNOWN_STOREFRONT"):
        prices.parse({"shop": GOOD}).named("other")


@pytest.mark.parametrize(
    "change",
    [
        ("credits = 0.125", "credits = -1"),
        ("credits = 0.125", "credits = 0.0001"),
        ("credits = 0.125", "credits = nan"),
        ("credits = 0.125", "credits = inf"),
        ("credits = 0.125", "credits = true"),
        ("credits = 0.125", 'credits = "5"'),
        ("credits = 0.125", "credits = 1_000_001"),
        ("credits = 0.125", "credits = 1\ncolour = 3"),
        ('sku = "free"', 'sku = "image"'),
        ('sku = "free"', 'sku = "Free Stuff"'),
        ('sku = "free"', ""),
        ("queued_jobs = 3", "queued_jobs = -3"),
        ("queued_jobs = 3", "queued_jobs = 4294967296"),
        ("queued_jobs = 3", "queued_jobs = 3\nqueue = 1"),
        ('"s_test_"', '"s_live_"'),
        ('"s_test_"', '"s_test"'),
        ('"s_test_"', '"S TEST_"'),
        ('version = "7"', "version = 7"),
        ('title = "Shop"', 'title = "Sh\\u0000op"'),
        ("[limits]", "[limit]"),
        ("[[prices]]", "[[price]]"),
    ],
)
def test_a_fault_refuses_the_whole_list(change: tuple[str, str]) -> None:
    assert change[0] in GOOD
    assert faults(GOOD.replace(*change, 1)) != []


def test_all_faults_are_told_at_once() -> None:
    broken = GOOD.replace("0.125", "-1").replace('version = "7"', "").replace("running_jobs = 2", "x = 2")
    told = "\n".join(faults(broken))
    for name in ("credits", "version", "running_jobs", "x is not a known field"):
        assert name in told


def test_two_storefronts_cannot_share_a_key_prefix() -> None:
    with pytest.raises(SettingsError, match="used twice"):
        prices.parse({"shop": GOOD, "other": GOOD})


def test_no_price_list_at_all_is_a_fault() -> None:
    with pytest.raises(SettingsError, match="no price list"):
        prices.parse({})


def test_what_is_not_toml_is_a_fault_of_its_file() -> None:
    assert faults("sku = = 1")[0].startswith("shop: not TOML")


WITH_USERS = (
    GOOD
    + """
[sign_up]
credits = 2.5
reset_url = "https://shop.example/new-password?token={token}"

[[packages]]
id = "starter"
title = "Starter"
credits = 500
price = "9.00"
currency = "USD"
"""
)


def test_a_storefront_with_users_has_a_welcome_and_packages() -> None:
    shop = prices.parse({"shop": WITH_USERS}).named("shop")
    assert shop.welcome_millis == 2_500
    assert shop.reset_url == "https://shop.example/new-password?token={token}"
    assert shop.packages == (prices.Package("starter", "Starter", 500_000, "9.00", "USD"),)


def test_a_storefront_without_users_has_neither() -> None:
    shop = prices.parse({"shop": GOOD}).named("shop")
    assert (shop.welcome_millis, shop.reset_url, shop.packages) == (0, "", ())


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('price = "9.00"', "price = 9.0", "packages[0]: price is not an amount"),
        ('price = "9.00"', 'price = "nine"', "packages[0]: price is not an amount"),
        ('currency = "USD"', 'currency = "$"', "packages[0]: currency is not a currency"),
        ('id = "starter"', 'id = "Starter pack"', "packages[0]: the id 'Starter pack'"),
        ("credits = 500", "credits = -1", "packages[0]: credits is not"),
        ("credits = 500", "credits = 500\nbonus = 1", "packages[0]: bonus is not a known field"),
        ("credits = 2.5", "credits = 1e30", "sign_up: credits is not"),
        ("credits = 2.5", "", "sign_up: credits is missing"),
        ("?token={token}", "", "reset_url does not say once where the {token} goes"),
        ("https://shop", "ftp://shop", "reset_url is not a URL"),
    ],
)
def test_what_is_wrong_about_users_and_packages_is_told(old: str, new: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        prices.parse({"shop": WITH_USERS.replace(old, new)})
    assert any(fault in told for told in refusal.value.faults), refusal.value.faults
