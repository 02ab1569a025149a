"""Keys: what they may do travels with them, they are rotated with an overlap, and so are the peppers behind them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.billing import keys
from services.billing.access_tokens import AccessTokens
from services.billing.authentication import Authenticator, Secrets
from services.billing.key_making import KeyMaker
from services.billing.keys import KeyOwner, KeyRules
from services.billing.prices import Storefronts
from services.billing.spending import SpendLimits
from services.billing.store import keys as key_rows
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.gen.billing.v1 import billing_pb2 as pb
from tests.conformance.billing_house import Books
from tests.conformance.billing_users import SHOP
from tests.unit.billing_keys import key

OLD, NEW = Secret("o" * 32), Secret("n" * 32)
HOUR_MS = 3_600_000


def authenticator(books: Books, *peppers: Secret) -> Authenticator:
    prefixes = Storefronts([SHOP]).key_prefixes()
    return Authenticator(books.database, prefixes, Secrets(peppers, AccessTokens((), 60)), books.clock)


def maker(books: Books, pepper: Secret = NEW) -> KeyMaker:
    return KeyMaker(books.database, Storefronts([SHOP]), pepper, books.clock)


async def works(books: Books, api_key: str, *peppers: Secret) -> bool:
    try:
        owner = await authenticator(books, *(peppers or (NEW,))).owner(api_key)
    except ServiceError as refusal:
        return refusal.reason != "INVALID_API_KEY"
    return isinstance(owner, KeyOwner)


async def made(books: Books, **fields: object) -> tuple[keys.Key, str]:
    return await maker(books).make(pb.CreateKeyRequest(customer_id="ann", mode=pb.MODE_LIVE, **fields))  # type: ignore[arg-type]  # fields of the message


async def test_rules_come_back_as_they_were_given(books: Books) -> None:
    rules = pb.KeyRules(
        models=["pro", "pro", "kling/v2", "sora2 pro"],
        networks=["203.0.113.0/24", "2001:DB8::/32", "198.51.100.7"],
        spend_limits=pb.SpendLimits(day_millis=5, month_millis=9),
    )
    one, api_key = await made(books, rules=rules)
    expected = KeyRules(
        ("pro", "kling/v2", "sora2 pro"),
        ("203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32"),
        SpendLimits(5, 9),
    )
    owner = await authenticator(books, NEW).owner(api_key)
    assert isinstance(owner, KeyOwner)
    assert one.rules == owner.key.rules == expected
    [listed] = await books.database.read(lambda c: key_rows.of_customer(c, "ann"))
    assert listed == one


@pytest.mark.parametrize(
    ("field", "rules"),
    [
        ("rules.networks", pb.KeyRules(networks=["203.0.113.1/24"])),
        ("rules.networks", pb.KeyRules(networks=["everywhere"])),
        ("rules.networks", pb.KeyRules(networks=["fe80::%eth0/64"])),
        ("rules.networks", pb.KeyRules(networks=[""])),
        ("rules.networks", pb.KeyRules(networks=["10.0.0.0/8"] * 101)),
        ("rules.models", pb.KeyRules(models=["pro "])),
        ("rules.models", pb.KeyRules(models=[" pro"])),
        ("rules.models", pb.KeyRules(models=["two\nlines"])),
        ("rules.models", pb.KeyRules(models=["x" * 129])),
        ("rules.models", pb.KeyRules(models=["pro"] * 101)),
        ("spend_limits.day_millis", pb.KeyRules(spend_limits=pb.SpendLimits(day_millis=-1))),
        ("spend_limits.month_millis", pb.KeyRules(spend_limits=pb.SpendLimits(month_millis=10**16))),
    ],
)
async def test_rules_that_mean_nothing_are_refused_by_name(
    books: Books, field: str, rules: pb.KeyRules
) -> None:
    with pytest.raises(ServiceError, match="INVALID_REQUEST") as refusal:
        await made(books, rules=rules)
    assert refusal.value.metadata["field"] == field


async def test_a_rotated_key_works_for_the_overlap_and_its_successor_after_it(books: Books) -> None:
    rules = pb.KeyRules(models=["pro"], spend_limits=pb.SpendLimits(day_millis=5))
    old, old_key = await made(books, label="laptop", rules=rules)
    request = pb.RotateKeyRequest(key_id=old.key_id, overlap_ms=HOUR_MS)
    new, new_key = await maker(books).rotate(request)
    assert (new.label, new.mode, new.rules.models) == ("laptop", "live", ("pro",))
    assert (new.line, new.hint) == (old.key_id, keys.hint(new_key))
    third, _ = await maker(books).rotate(pb.RotateKeyRequest(key_id=new.key_id, overlap_ms=2 * HOUR_MS))
    assert third.line == old.key_id
    assert await works(books, old_key)
    books.clock.at_ms += HOUR_MS
    assert not await works(books, old_key)
    assert await works(books, new_key)


async def test_rotating_never_lengthens_a_key_and_keeps_when_it_ends(books: Books) -> None:
    ends_at_ms = books.clock.at_ms + HOUR_MS
    old, old_key = await made(books, expires_at_ms=ends_at_ms)
    new, new_key = await maker(books).rotate(pb.RotateKeyRequest(key_id=old.key_id, overlap_ms=5 * HOUR_MS))
    assert new.expires_at_ms == ends_at_ms
    books.clock.at_ms = ends_at_ms
    assert not await works(books, old_key)
    assert not await works(books, new_key)


@pytest.mark.parametrize("ends_after_ms", [0, 9 * HOUR_MS])
async def test_a_key_that_is_rotated_again_gets_a_successor_that_outlives_it(
    books: Books, ends_after_ms: int
) -> None:
    ends_at_ms = books.clock.at_ms + ends_after_ms if ends_after_ms else 0
    old, _ = await made(books, expires_at_ms=ends_at_ms)
    request = pb.RotateKeyRequest(key_id=old.key_id, overlap_ms=HOUR_MS)
    lost, _ = await maker(books).rotate(request)
    again, again_key = await maker(books).rotate(request)
    assert lost.expires_at_ms == again.expires_at_ms == ends_at_ms
    books.clock.at_ms += HOUR_MS
    assert await works(books, again_key)


async def test_a_key_is_rotated_at_once_and_then_not_again(books: Books) -> None:
    old, old_key = await made(books)
    request = pb.RotateKeyRequest(key_id=old.key_id, overlap_ms=0)
    await maker(books).rotate(request)
    assert not await works(books, old_key)
    with pytest.raises(ServiceError, match="KEY_NOT_FOUND"):
        await maker(books).rotate(request)


@pytest.mark.parametrize("overlap_ms", [-1, 30 * 24 * HOUR_MS + 1])
async def test_an_overlap_is_a_month_at_most(books: Books, overlap_ms: int) -> None:
    old, _ = await made(books)
    with pytest.raises(ServiceError, match="INVALID_REQUEST"):
        await maker(books).rotate(pb.RotateKeyRequest(key_id=old.key_id, overlap_ms=overlap_ms))


async def _lookups(books: Books, api_key: str, peppers: Sequence[Secret]) -> int:
    """How many reads a key costs."""
    reads = 0
    read = books.database.read

    async def counted(*args: object, **more: object) -> object:
        nonlocal reads
        reads += 1
        return await read(*args, **more)  # type: ignore[arg-type]  # handed on as they are

    books.database.read = counted  # type: ignore[method-assign,assignment]  # counted, and put back below
    try:
        await authenticator(books, *peppers).owner(api_key)
    finally:
        books.database.read = read  # type: ignore[method-assign]  # as it was
    return reads


async def test_a_pepper_is_changed_without_losing_a_key(books: Books) -> None:
    api_key = keys.make("s_live_")
    await books.database.write(lambda c: key_rows.add(c, key("key_1"), keys.digest(api_key, OLD)))
    assert not await works(books, api_key, NEW)
    assert await _lookups(books, api_key, (NEW, OLD)) == 1
    ring = authenticator(books, NEW, OLD)
    await ring.owner(api_key)
    await ring.write_uses()
    assert await works(books, api_key, NEW)
    assert not await works(books, api_key, OLD)
