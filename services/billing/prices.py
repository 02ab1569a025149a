"""Storefronts and their price lists: one file each, checked as a whole before anything is sold by it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

from services.billing import errors
from services.billing.operations import Quote
from services.chassis.settings import SettingsError

# Times the largest quantity of the wire (32 bits) this still fits a signed 64-bit column.
MAX_UNIT_PRICE_MILLIS = 10**9
MAX_PLAY_CREDIT_MILLIS = 10**13
# A billion credits: beyond any gift or sale, far below what a wallet holds.
MAX_WELCOME_MILLIS = 10**12
# The wire's uint32; limits beyond it could not be told to anybody.
MAX_LIMIT = 2**32 - 1

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# A key is its prefix and base62 characters; the underscore at the end keeps the two apart.
_MONEY = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_RESET_URL = re.compile(r"https?://[!-~]+")
_KEY_PREFIX = re.compile(r"[a-z0-9_]{1,31}_")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a customer may do at once; 0 means none."""

    requests_per_minute: int
    running_jobs: int
    queued_jobs: int


@dataclass(frozen=True, slots=True)
class Price:
    """One thing that is sold, and what one unit of it costs."""

    sku: str
    title: str
    unit: str
    unit_price_millis: int


@dataclass(frozen=True, slots=True)
class Package:
    """Credit that is sold in one go. The price is for people to read: nothing here takes money."""

    package_id: str
    title: str
    credit_millis: int
    # As decimal text: "9.00".
    price: str
    # ISO 4217.
    currency: str


@dataclass(frozen=True, slots=True)
class Storefront:
    """One public brand as billing knows it: its price list, its key prefixes and its defaults."""

    name: str
    title: str
    version: str
    live_prefix: str
    test_prefix: str
    limits: Limits
    play_credit_millis: int
    prices: Mapping[str, Price]
    packages: tuple[Package, ...] = ()
    # What a new user's live wallet is opened with.
    welcome_millis: int = 0
    # Where a new password is set, with `{token}` in it; empty: the mail names the token alone.
    reset_url: str = ""

    def quote(self, sku: str, quantity: int) -> Quote | None:
        """What `quantity` units of `sku` cost, or None where the list has no such SKU."""
        price = self.prices.get(sku)
        if price is None:
            return None
        return Quote(price.unit_price_millis * quantity, self.version)

    def key_prefix(self, mode: str) -> str:
        """What keys of this mode begin with."""
        return self.live_prefix if mode == "live" else self.test_prefix


class Storefronts:
    """All storefronts of this house, by name and by key prefix."""

    def __init__(self, storefronts: Iterable[Storefront]) -> None:
        self._by_name = {storefront.name: storefront for storefront in storefronts}
        self._by_prefix = {
            storefront.key_prefix(mode): (storefront, mode)
            for storefront in self._by_name.values()
            for mode in ("live", "test")
        }

    def named(self, name: str) -> Storefront:
        """Raises ServiceError UNKNOWN_STOREFRONT."""
        storefront = self._by_name.get(name)
        if storefront is None:
            raise errors.unknown_storefront(name)
        return storefront

    def key_prefixes(self) -> frozenset[str]:
        """Every prefix that a key of this house may begin with."""
        return frozenset(self._by_prefix)


def parse(files: Mapping[str, str]) -> Storefronts:
    """Read price lists: storefront name (the file's name without its ending) → content in TOML.

    Raises SettingsError that lists every fault of every file at once.
    """
    faults: list[str] = []
    storefronts = [
        storefront
        for name, content in sorted(files.items())
        if (storefront := _storefront(name, content, faults)) is not None
    ]
    if not files:
        faults.append("there is no price list: nothing could be sold")
    faults += _prefix_faults(storefronts)
    if faults:
        raise SettingsError(faults)
    return Storefronts(storefronts)


def _prefix_faults(storefronts: Iterable[Storefront]) -> list[str]:
    faults, owners = [], dict[str, str]()
    for storefront in storefronts:
        for prefix in (storefront.live_prefix, storefront.test_prefix):
            owner = owners.setdefault(prefix, storefront.name)
            if owner != storefront.name or storefront.live_prefix == storefront.test_prefix:
                faults.append(f"{storefront.name}: the key prefix {prefix!r} is used twice")
    return faults


def _storefront(name: str, content: str, faults: list[str]) -> Storefront | None:
    if not _NAME.fullmatch(name):
        faults.append(f"{name}: a storefront's name is up to 64 of a-z, 0-9, '.', '_' and '-'")
        return None
    try:
        # Decimal: 0.1 credits must be exactly 100 millis.
        table = tomllib.loads(content, parse_float=Decimal)
    except tomllib.TOMLDecodeError as fault:
        faults.append(f"{name}: not TOML: {fault}")
        return None
    known = len(faults)
    root = _Table(table, name, faults)
    keys, limits, play = root.table("keys"), root.table("limits"), root.table("test_wallet")
    sign_up = root.table("sign_up") if root.has("sign_up") else None
    storefront = Storefront(
        name=name,
        title=root.text("title"),
        version=f"{root.text('version')}+{_content_hash(table)}",
        live_prefix=keys.prefix("live_prefix"),
        test_prefix=keys.prefix("test_prefix"),
        limits=Limits(*(limits.limit(field) for field in Limits.__slots__)),
        play_credit_millis=play.millis("credits", MAX_PLAY_CREDIT_MILLIS),
        prices=_prices(root, faults),
        packages=_packages(root, faults),
        welcome_millis=sign_up.millis("credits", MAX_WELCOME_MILLIS) if sign_up else 0,
        reset_url=sign_up.reset_url("reset_url") if sign_up else "",
    )
    for part in (root, keys, limits, play, *([sign_up] if sign_up else [])):
        part.refuse_rest()
    return storefront if len(faults) == known else None


def _prices(root: _Table, faults: list[str]) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    for row in root.tables("prices"):
        price = Price(
            sku=row.text("sku"),
            title=row.text("title"),
            unit=row.text("unit"),
            unit_price_millis=row.millis("credits", MAX_UNIT_PRICE_MILLIS),
        )
        row.refuse_rest()
        if not _NAME.fullmatch(price.sku):
            faults.append(f"{row.place}: the SKU {price.sku!r} is not up to 64 of a-z, 0-9, '.', '_' and '-'")
        elif price.sku in prices:
            faults.append(f"{row.place}: the SKU {price.sku!r} is there twice")
        prices[price.sku] = price
    return prices


def _packages(root: _Table, faults: list[str]) -> tuple[Package, ...]:
    packages: dict[str, Package] = {}
    for row in root.tables("packages") if root.has("packages") else ():
        package = Package(
            package_id=row.text("id"),
            title=row.text("title"),
            credit_millis=row.millis("credits", MAX_WELCOME_MILLIS),
            price=row.matching("price", _MONEY, 'is not an amount of money in quotes, as "9.00"'),
            currency=row.matching("currency", _CURRENCY, 'is not a currency as "USD"'),
        )
        row.refuse_rest()
        if not _NAME.fullmatch(package.package_id) or package.package_id in packages:
            faults.append(
                f"{row.place}: the id {package.package_id!r} is there twice, or not made of a-z and 0-9"
            )
        packages[package.package_id] = package
    return tuple(packages.values())


def _content_hash(table: Mapping[str, Any]) -> str:
    # Of what was read, not of the bytes: a comment does not make a new version, a forgotten `version` does not hide one.
    return sha256(repr(_sorted(table)).encode()).hexdigest()[:8]


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


class _Table:
    """A TOML table that remembers what was asked for, so that what is left over can be refused."""

    def __init__(self, values: Mapping[str, Any], place: str, faults: list[str]) -> None:
        self._rest = dict(values)
        self.place = place
        self._faults = faults

    def text(self, name: str) -> str:
        value = self._rest.pop(name, None)
        if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable():
            return value
        self._fault(name, "is not a text of 1 to 200 characters", value)
        return ""

    def prefix(self, name: str) -> str:
        value = self._rest.pop(name, None)
        if isinstance(value, str) and _KEY_PREFIX.fullmatch(value):
            return value
        self._fault(name, "is not lower-case letters, digits and underscores, ending in an underscore", value)
        return f"{self.place}:{name}"

    def has(self, name: str) -> bool:
        return name in self._rest

    def matching(self, name: str, form: re.Pattern[str], problem: str) -> str:
        value = self._rest.pop(name, None)
        if isinstance(value, str) and form.fullmatch(value):
            return value
        self._fault(name, problem, value)
        return ""

    def reset_url(self, name: str) -> str:
        if not self.has(name):
            return ""
        url = self.matching(name, _RESET_URL, "is not a URL")
        if url and url.count("{token}") != 1:
            self._fault(name, "does not say once where the {token} goes", url)
        return url

    def limit(self, name: str) -> int:
        value = self._rest.pop(name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LIMIT:
            return value
        self._fault(name, f"is not a whole number from 0 to {MAX_LIMIT}", value)
        return 0

    def millis(self, name: str, maximum_millis: int) -> int:
        value = self._rest.pop(name, None)
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            exact = Decimal(value) * 1000
            if exact.is_finite() and 0 <= exact <= maximum_millis and exact == exact.to_integral_value():
                return int(exact)
        self._fault(name, f"is not 0 to {maximum_millis // 1000} credits with at most three decimals", value)
        return 0

    def table(self, name: str) -> _Table:
        value = self._rest.pop(name, None)
        if not isinstance(value, dict):
            self._fault(name, "is not a table", value)
            value = {}
        return _Table(value, f"{self.place}: {name}", self._faults)

    def tables(self, name: str) -> list[_Table]:
        value = self._rest.pop(name, None)
        if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
            self._fault(name, "is not a list of one or more tables", value)
            return []
        return [_Table(row, f"{self.place}: {name}[{n}]", self._faults) for n, row in enumerate(value)]

    def refuse_rest(self) -> None:
        self._faults += [f"{self.place}: {name} is not a known field" for name in self._rest]

    def _fault(self, name: str, problem: str, value: object) -> None:
        self._faults.append(
            f"{self.place}: {name} is missing"
            if value is None
            else f"{self.place}: {name} {problem}: {value!r}"
        )
