"""`wallets`: credit, and the journal that explains it."""

from __future__ import annotations

from typing import Any

from services.admin.command import LIMIT, MODE, Command, argument, count, millis, paid_millis
from services.admin.connection import House
from services.admin.rendering import Table, plain, table
from services.gen.billing.v1 import billing_pb2 as pb

_MODES = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}
_CUSTOMER = argument("customer_id", metavar="CUSTOMER_ID")
_KEY = argument(
    "--idempotency-key",
    required=True,
    help="an invoice number, say: repeating the command with the same key changes nothing",
)
_NOTE = argument("--note", default="", help="for the journal")


async def show(house: House, chosen: Any) -> object:
    request = pb.GetBalanceRequest(customer_id=chosen.customer_id, mode=_MODES[chosen.mode])
    return plain((await house.billing.GetBalance(request)).balance)


async def top_up(house: House, chosen: Any) -> object:
    request = pb.TopUpRequest(
        customer_id=chosen.customer_id,
        mode=_MODES[chosen.mode],
        amount_millis=chosen.credits,
        idempotency_key=chosen.idempotency_key,
        note=chosen.note,
    )
    answer = await house.billing.TopUp(request)
    return plain(answer.balance) | {"replayed": answer.replayed}


async def adjust(house: House, chosen: Any) -> object:
    request = pb.AdjustRequest(
        customer_id=chosen.customer_id,
        mode=_MODES[chosen.mode],
        amount_millis=chosen.credits,
        idempotency_key=chosen.idempotency_key,
        note=chosen.note,
    )
    answer = await house.billing.Adjust(request)
    return plain(answer.balance) | {"replayed": answer.replayed}


async def journal(house: House, chosen: Any) -> Table:
    request = pb.ListJournalRequest(
        customer_id=chosen.customer_id,
        mode=_MODES[chosen.mode],
        before_sequence=chosen.before,
        limit=chosen.limit,
    )
    answer = await house.billing.ListJournal(request)
    columns = ("sequence", "created_at_ms", "kind", "applied", "amount_millis", "balance_after_millis")
    return table(answer.entries, *columns, "reserved_after_millis", "job_id", "sku", "note")


COMMANDS = (
    Command(
        "wallets",
        "show",
        "Show balance, reserved and available credit.",
        show,
        (_CUSTOMER, MODE),
        "cus_your_id",
    ),
    Command(
        "wallets",
        "top-up",
        "Add bought credit to a wallet.",
        top_up,
        (_CUSTOMER, MODE, argument("--credits", type=paid_millis, required=True), _KEY, _NOTE),
        "cus_your_id --credits 5000 --idempotency-key invoice-1001",
    ),
    Command(
        "wallets",
        "adjust",
        "Correct a wallet; a negative amount takes credit away.",
        adjust,
        (_CUSTOMER, MODE, argument("--credits", type=millis, required=True), _KEY, _NOTE),
        "cus_your_id --credits=-20 --idempotency-key ticket-77 --note 'given twice'",
    ),
    Command(
        "wallets",
        "journal",
        "List the journal of a wallet, newest first.",
        journal,
        (
            _CUSTOMER,
            MODE,
            argument("--before", type=count, default=0, metavar="SEQUENCE", help="go on before this entry"),
            LIMIT,
        ),
        "cus_your_id --limit 20",
    ),
)
