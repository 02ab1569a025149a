"""What a request must be to get in: every field of every request is checked here, and becomes an operation.

Each function raises ServiceError INVALID_REQUEST with the field's name, before anything is read or written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from ipaddress import ip_network

from services.billing import customers, errors, ledger, operations, prices
from services.billing.keys import NO_RULES, Key, KeyRules
from services.billing.operations import WalletId
from services.billing.prices import Limits, Storefronts
from services.billing.spending import UNLIMITED, SpendLimits
from services.billing.store import holds
from services.chassis.ids import new_id
from services.chassis.mapped_addresses import unmapped_network
from services.gen.billing.v1 import billing_pb2 as pb

# No change can be larger than what a wallet may hold.
MAX_AMOUNT_MILLIS = ledger.MAX_BALANCE_MILLIS
# A hold that outlives a week belongs to no job; whoever needs it longer extends it.
MAX_TTL_MS = 7 * 24 * 3600 * 1000
MAX_NAME_CHARACTERS = 200
MAX_NOTE_CHARACTERS = 500
MAX_LISTED = 1_000
DEFAULT_LISTED = 100
# Of models and of networks; a key that needs more needs none.
MAX_RULES = 100
# Longer than any roll-out of a new key takes; a key that is to live on is not rotated.
MAX_OVERLAP_MS = 30 * 24 * 3600 * 1000
# What one heartbeat of the jobs service may carry.
MAX_EXTENDED_HOLDS = 10_000
# The last millisecond of the year 9999, beyond which times cannot be written down.
MAX_TIME_MS = 253_402_300_799_999

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
# Some storefronts sell a `sora2 pro`.
_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/ -]{0,126}[A-Za-z0-9._:/-])?")
_IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")
_MODES = {pb.MODE_LIVE: "live", pb.MODE_TEST: "test"}
_CUSTOMER_STATES = {
    pb.CUSTOMER_STATE_ACTIVE: customers.ACTIVE,
    pb.CUSTOMER_STATE_SUSPENDED: customers.SUSPENDED,
}
_HOLD_STATES = {
    pb.HOLD_STATE_UNSPECIFIED: "",
    pb.HOLD_STATE_OPEN: ledger.OPEN,
    pb.HOLD_STATE_CAPTURED: ledger.CAPTURED,
    pb.HOLD_STATE_RELEASED: ledger.RELEASED,
    pb.HOLD_STATE_EXPIRED: ledger.EXPIRED,
}


def hold(request: pb.HoldRequest, storefronts: Storefronts) -> operations.Hold:
    """The operation, priced; raises ServiceError UNKNOWN_STOREFRONT too."""
    wallet, job_id = wallet_of(request), identifier("job_id", request.job_id)
    if request.quantity < 1:
        raise errors.invalid_request("quantity", "must be at least 1")
    sku = identifier("sku", request.sku)
    return operations.Hold(
        wallet=wallet,
        job_id=job_id,
        storefront=request.storefront,
        sku=sku,
        quantity=request.quantity,
        quote=storefronts.named(request.storefront).quote(sku, request.quantity),
        ttl_ms=within("ttl_ms", request.ttl_ms, 1, MAX_TTL_MS),
        key_id=identifier("key_id", request.key_id) if request.key_id else "",
    )


def capture(request: pb.CaptureRequest) -> operations.Capture:
    amount_millis = within("amount_millis", request.amount_millis, 0, MAX_AMOUNT_MILLIS)
    return operations.Capture(wallet_of(request), identifier("job_id", request.job_id), amount_millis)


def release(request: pb.ReleaseRequest) -> operations.Release:
    return operations.Release(wallet_of(request), identifier("job_id", request.job_id))


def extension(request: pb.ExtendHoldsRequest, now_ms: int) -> tuple[list[str], int]:
    """The jobs, and until when their holds are to live."""
    ttl_ms = within("ttl_ms", request.ttl_ms, 1, MAX_TTL_MS)
    return identifiers("job_ids", request.job_ids, MAX_EXTENDED_HOLDS), now_ms + ttl_ms


def top_up(request: pb.TopUpRequest) -> operations.Grant:
    amount_millis = within("amount_millis", request.amount_millis, 1, MAX_AMOUNT_MILLIS)
    return _grant(request, operations.TOP_UP, amount_millis)


def adjustment(request: pb.AdjustRequest) -> operations.Grant:
    amount_millis = within("amount_millis", request.amount_millis, -MAX_AMOUNT_MILLIS, MAX_AMOUNT_MILLIS)
    if amount_millis == 0:
        raise errors.invalid_request("amount_millis", "must not be 0")
    return _grant(request, operations.ADJUST, amount_millis)


def new_customer(
    request: pb.CreateCustomerRequest, storefronts: Storefronts, now_ms: int
) -> customers.NewCustomer:
    """Raises ServiceError UNKNOWN_STOREFRONT too."""
    key = request.idempotency_key
    return customers.opened(
        storefront=storefronts.named(request.storefront),
        name=text("name", request.name, MAX_NAME_CHARACTERS, required=True),
        limits=_limits(request.limits) if request.HasField("limits") else None,
        idempotency_key=idempotency_key(key) if key else "",
        play_credit_millis=within(
            "test_credit_millis", request.test_credit_millis, 0, prices.MAX_PLAY_CREDIT_MILLIS
        ),
        now_ms=now_ms,
        spend_limits=_spend_limits(request.spend_limits),
    )


def customer_changes(request: pb.UpdateCustomerRequest) -> customers.Changes:
    state = _CUSTOMER_STATES.get(request.state) if request.HasField("state") else None
    if request.HasField("state") and state is None:
        raise errors.invalid_request("state", "must be active or suspended")
    return customers.Changes(
        name=text("name", request.name, MAX_NAME_CHARACTERS, required=True)
        if request.HasField("name")
        else None,
        state=state,
        limits=_limits(request.limits) if request.HasField("limits") else None,
        spend_limits=_spend_limits(request.spend_limits) if request.HasField("spend_limits") else None,
    )


def new_key(request: pb.CreateKeyRequest, hint: str, now_ms: int) -> Key:
    """The key's row; `hint` is the part of the key that may be shown."""
    expires_at_ms = within("expires_at_ms", request.expires_at_ms, 0, MAX_TIME_MS)
    if 0 < expires_at_ms <= now_ms:
        raise errors.invalid_request("expires_at_ms", "must be in the future")
    return Key(
        key_id=new_id("key"),
        customer_id=identifier("customer_id", request.customer_id),
        mode=mode(request.mode),
        label=text("label", request.label, MAX_NAME_CHARACTERS),
        hint=hint,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
        revoked_at_ms=0,
        last_used_at_ms=0,
        rules=_rules(request.rules) if request.HasField("rules") else NO_RULES,
    )


def hold_filter(request: pb.ListHoldsRequest) -> holds.Filter:
    state = _HOLD_STATES.get(request.state)
    if state is None:
        raise errors.invalid_request("state", "is not a state of a hold")
    return holds.Filter(
        state=state,
        created_before_ms=within("created_before_ms", request.created_before_ms, 0, MAX_TIME_MS),
        job_ids=identifiers("job_ids", request.job_ids, MAX_LISTED),
        after_job_id=identifier("after_job_id", request.after_job_id) if request.after_job_id else "",
        limit=listed(request.limit),
    )


def wallet_names(values: Collection[pb.WalletName]) -> list[WalletId]:
    if len(values) > MAX_LISTED:
        raise errors.invalid_request("wallets", f"must not be more than {MAX_LISTED}")
    return [wallet_of(value) for value in values]


def wallet_of(
    request: pb.HoldRequest
    | pb.CaptureRequest
    | pb.ReleaseRequest
    | pb.TopUpRequest
    | pb.AdjustRequest
    | pb.GetBalanceRequest
    | pb.ListJournalRequest
    | pb.WalletName,
) -> WalletId:
    """The wallet that a request names."""
    return WalletId(identifier("customer_id", request.customer_id), mode(request.mode))


def mode(value: pb.Mode.ValueType) -> str:
    name = _MODES.get(value)
    if name is None:
        raise errors.invalid_request("mode", "must be live or test")
    return name


def identifier(field: str, value: str) -> str:
    if not _IDENTIFIER.fullmatch(value):
        raise errors.invalid_request(
            field, "must be 1 to 128 letters, digits, '.', '_', ':' and '-', beginning with a letter or digit"
        )
    return value


def identifiers(field: str, values: Iterable[str], maximum: int) -> list[str]:
    checked = [identifier(field, value) for value in values]
    if len(checked) > maximum:
        raise errors.invalid_request(field, f"must not be more than {maximum}")
    return checked


def idempotency_key(value: str) -> str:
    if not _IDEMPOTENCY_KEY.fullmatch(value):
        raise errors.invalid_request("idempotency_key", "must be 1 to 255 printable ASCII characters")
    return value


def text(field: str, value: str, maximum_characters: int, *, required: bool = False) -> str:
    """A text for people: printable, on one line."""
    if required and not value.strip():
        raise errors.invalid_request(field, "is missing")
    if len(value) > maximum_characters or not value.isprintable():
        raise errors.invalid_request(field, f"must be at most {maximum_characters} printable characters")
    return value


def within(field: str, value: int, minimum: int, maximum: int) -> int:
    if not minimum <= value <= maximum:
        raise errors.invalid_request(field, f"must be {minimum} to {maximum}")
    return value


def listed(limit: int) -> int:
    """How many rows a page holds."""
    return min(limit, MAX_LISTED) or DEFAULT_LISTED


def _grant(
    request: pb.TopUpRequest | pb.AdjustRequest, kind: operations.GrantKind, amount_millis: int
) -> operations.Grant:
    return operations.Grant(
        wallet=wallet_of(request),
        kind=kind,
        amount_millis=amount_millis,
        idempotency_key=idempotency_key(request.idempotency_key),
        note=text("note", request.note, MAX_NOTE_CHARACTERS),
    )


def _limits(limits: pb.Limits) -> Limits:
    return Limits(limits.requests_per_minute, limits.running_jobs, limits.queued_jobs)


def _spend_limits(limits: pb.SpendLimits) -> SpendLimits:
    day_millis, month_millis = (
        within(f"spend_limits.{name}", getattr(limits, name), 0, MAX_AMOUNT_MILLIS)
        for name in SpendLimits._fields
    )
    return SpendLimits(day_millis, month_millis) if day_millis or month_millis else UNLIMITED


def _rules(rules: pb.KeyRules) -> KeyRules:
    for field, values in (("rules.models", rules.models), ("rules.networks", rules.networks)):
        if len(values) > MAX_RULES:
            raise errors.invalid_request(field, f"must not be more than {MAX_RULES}")
    if not all(map(_MODEL.fullmatch, rules.models)):
        raise errors.invalid_request("rules.models", "must be names of models")
    return KeyRules(
        models=tuple(dict.fromkeys(rules.models)),
        networks=tuple(dict.fromkeys(map(_network, rules.networks))),
        spend_limits=_spend_limits(rules.spend_limits),
    )


def _network(text: str) -> str:
    """The one way in which a network is written. A bare address is the network of itself, and one of IPv4 that is
    written in IPv6 (::ffff:203.0.113.0/120) is compared as what it is.
    """
    try:
        # What stands behind a % is this machine's own name for a cable.
        network = None if "%" in text else unmapped_network(ip_network(text))
    except ValueError:
        network = None
    if network is None:
        raise errors.invalid_request(
            "rules.networks", "must be networks as 203.0.113.0/24, with zeros behind the prefix"
        )
    return str(network)
