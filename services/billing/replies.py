"""What goes out: records of billing as messages of its contract."""

from __future__ import annotations

from collections.abc import Iterable

from services.billing import customers, ledger
from services.billing.customers import Customer
from services.billing.keys import Key, KeyOwner, KeyRules
from services.billing.ledger import Entry, HoldRow, Receipt
from services.billing.prices import Limits, Storefront
from services.billing.spending import SpendLimits
from services.billing.store.totals import Total
from services.billing.users import TokenOwner, User
from services.gen.billing.v1 import billing_pb2 as pb

_MODES = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}
_CUSTOMER_STATES = {
    customers.ACTIVE: pb.CUSTOMER_STATE_ACTIVE,
    customers.SUSPENDED: pb.CUSTOMER_STATE_SUSPENDED,
}
_HOLD_STATES = {
    ledger.OPEN: pb.HOLD_STATE_OPEN,
    ledger.CAPTURED: pb.HOLD_STATE_CAPTURED,
    ledger.RELEASED: pb.HOLD_STATE_RELEASED,
    ledger.EXPIRED: pb.HOLD_STATE_EXPIRED,
}


def balance(balance_millis: int, reserved_millis: int) -> pb.Balance:
    return pb.Balance(
        balance_millis=balance_millis,
        reserved_millis=reserved_millis,
        available_millis=max(0, balance_millis - reserved_millis),
    )


def held(receipt: Receipt) -> pb.HoldResponse:
    response = pb.HoldResponse()
    response.amount_millis = receipt.amount_millis
    response.price_version = receipt.price_version
    response.replayed = receipt.replayed
    _tell_balance(response.balance, receipt)
    return response


def captured(receipt: Receipt) -> pb.CaptureResponse:
    response = pb.CaptureResponse()
    response.captured_millis = receipt.amount_millis
    response.released_millis = receipt.released_millis
    response.unbilled = receipt.outcome == ledger.UNBILLED
    response.replayed = receipt.replayed
    _tell_balance(response.balance, receipt)
    return response


def released(receipt: Receipt) -> pb.ReleaseResponse:
    response = pb.ReleaseResponse()
    response.released_millis = receipt.amount_millis
    response.tombstone = receipt.outcome == ledger.TOMBSTONE
    response.replayed = receipt.replayed
    _tell_balance(response.balance, receipt)
    return response


def topped_up(receipt: Receipt) -> pb.TopUpResponse:
    return pb.TopUpResponse(balance=_balance_of(receipt), replayed=receipt.replayed)


def adjusted(receipt: Receipt) -> pb.AdjustResponse:
    return pb.AdjustResponse(balance=_balance_of(receipt), replayed=receipt.replayed)


def authenticated(owner: KeyOwner | TokenOwner) -> pb.AuthenticateResponse:
    if isinstance(owner, TokenOwner):
        user_of_token = owner.login.user
        return pb.AuthenticateResponse(
            customer_id=user_of_token.customer_id,
            storefront=user_of_token.storefront,
            mode=pb.MODE_LIVE,
            limits=_limits(owner.limits),
            user_id=user_of_token.user_id,
        )
    return pb.AuthenticateResponse(
        customer_id=owner.key.customer_id,
        storefront=owner.storefront,
        mode=_MODES[owner.key.mode],
        key_id=owner.key.key_id,
        limits=_limits(owner.limits),
        user_id=owner.user_id,
        rules=_rules(owner.key.rules),
    )


def user(record: User) -> pb.User:
    return pb.User(
        user_id=record.user_id,
        email=record.email,
        full_name=record.full_name,
        created_at_ms=record.created_at_ms,
        customer_id=record.customer_id,
        storefront=record.storefront,
    )


def customer(record: Customer) -> pb.Customer:
    return pb.Customer(
        customer_id=record.customer_id,
        storefront=record.storefront,
        name=record.name,
        state=_CUSTOMER_STATES[record.state],
        limits=_limits(record.limits),
        created_at_ms=record.created_at_ms,
        spend_limits=_spend_limits(record.spend_limits),
    )


def key(record: Key) -> pb.Key:
    return pb.Key(
        key_id=record.key_id,
        customer_id=record.customer_id,
        mode=_MODES[record.mode],
        label=record.label,
        hint=record.hint,
        created_at_ms=record.created_at_ms,
        expires_at_ms=record.expires_at_ms,
        revoked_at_ms=record.revoked_at_ms,
        last_used_at_ms=record.last_used_at_ms,
        rules=_rules(record.rules),
    )


def journal_entry(entry: Entry) -> pb.JournalEntry:
    return pb.JournalEntry(
        sequence=entry.sequence,
        kind=entry.kind,
        applied=entry.applied,
        debit_account=entry.debit_account,
        credit_account=entry.credit_account,
        amount_millis=entry.amount_millis,
        job_id=entry.job_id,
        sku=entry.sku,
        note=entry.note,
        balance_after_millis=entry.balance_after_millis,
        reserved_after_millis=entry.reserved_after_millis,
        created_at_ms=entry.created_at_ms,
    )


def hold_record(hold: HoldRow) -> pb.HoldRecord:
    return pb.HoldRecord(
        job_id=hold.job_id,
        customer_id=hold.wallet.customer_id,
        mode=_MODES[hold.wallet.mode],
        amount_millis=hold.amount_millis,
        captured_millis=hold.captured_millis,
        state=_HOLD_STATES[hold.state],
        created_at_ms=hold.created_at_ms,
        expires_at_ms=hold.expires_at_ms,
    )


def charged_totals(totals: Iterable[Total]) -> pb.GetChargedTotalsResponse:
    answer = pb.GetChargedTotalsResponse()
    for total in totals:
        customer_id, mode = total.wallet.customer_id, _MODES[total.wallet.mode]
        if total.behind:
            answer.behind.add(customer_id=customer_id, mode=mode)
        else:
            answer.totals.add(
                customer_id=customer_id,
                mode=mode,
                captured_millis=total.captured_millis,
                unbilled_millis=total.unbilled_millis,
            )
    return answer


def price_list(storefront: Storefront) -> pb.GetPriceListResponse:
    prices = [
        pb.Price(sku=p.sku, unit_price_millis=p.unit_price_millis, unit=p.unit, title=p.title)
        for p in storefront.prices.values()
    ]
    packages = [
        pb.Package(
            package_id=p.package_id,
            title=p.title,
            credit_millis=p.credit_millis,
            price=p.price,
            currency=p.currency,
        )
        for p in storefront.packages
    ]
    return pb.GetPriceListResponse(version=storefront.version, prices=prices, packages=packages)


# A part is filled in its place: made by keywords and copied in, it costs twice as much, and these answers are hot.
def _tell_balance(part: pb.Balance, receipt: Receipt) -> None:
    part.balance_millis = receipt.balance_millis
    part.reserved_millis = receipt.reserved_millis
    part.available_millis = max(0, receipt.balance_millis - receipt.reserved_millis)


def _balance_of(receipt: Receipt) -> pb.Balance:
    return balance(receipt.balance_millis, receipt.reserved_millis)


def _limits(limits: Limits) -> pb.Limits:
    return pb.Limits(
        requests_per_minute=limits.requests_per_minute,
        running_jobs=limits.running_jobs,
        queued_jobs=limits.queued_jobs,
    )


def _spend_limits(limits: SpendLimits) -> pb.SpendLimits | None:
    if not limits.are_set:
        return None
    return pb.SpendLimits(day_millis=limits.day_millis, month_millis=limits.month_millis)


def _rules(rules: KeyRules) -> pb.KeyRules | None:
    if not (rules.models or rules.networks or rules.spend_limits.are_set):
        return None
    return pb.KeyRules(
        models=rules.models, networks=rules.networks, spend_limits=_spend_limits(rules.spend_limits)
    )
