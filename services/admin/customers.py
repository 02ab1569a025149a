"""`customers`: who may buy."""

from __future__ import annotations

from typing import Any

from services.admin.command import LIMIT, SPEND_LIMITS, Command, argument, count
from services.admin.connection import House
from services.admin.rendering import Table, plain, table
from services.chassis.ids import new_ulid
from services.gen.billing.v1 import billing_pb2 as pb

_CUSTOMER = argument("customer_id", metavar="CUSTOMER_ID")
_LIMIT_NAMES = ("requests_per_minute", "running_jobs", "queued_jobs")
_LIMITS = (
    argument("--requests-per-minute", type=count, help="requests in any 60 seconds; 0: no limit"),
    argument("--running-jobs", type=count, help="jobs on a provider account at once; 0: none"),
    argument(
        "--queued-jobs", type=count, help="jobs waiting at once, and being accepted; 0: no job is accepted"
    ),
)


async def create(house: House, chosen: Any) -> object:
    limits = _limits(chosen, None)
    request = pb.CreateCustomerRequest(
        storefront=chosen.storefront,
        name=chosen.name,
        limits=limits,
        idempotency_key=chosen.idempotency_key or new_ulid(),
        spend_limits=_spend_limits(chosen, None),
    )
    customer = (await house.billing.CreateCustomer(request)).customer
    if 0 in (getattr(chosen, name) for name in _LIMIT_NAMES):
        # In a creation 0 stands for the storefront's own limit.
        change = pb.UpdateCustomerRequest(
            customer_id=customer.customer_id, limits=_limits(chosen, customer.limits)
        )
        customer = (await house.billing.UpdateCustomer(change)).customer
    return plain(customer)


async def list_all(house: House, chosen: Any) -> Table:
    request = pb.ListCustomersRequest(
        storefront=chosen.storefront, limit=chosen.limit, after_customer_id=chosen.after
    )
    answer = await house.billing.ListCustomers(request)
    return table(answer.customers, "customer_id", "storefront", "name", "state", "created_at_ms")


async def show(house: House, chosen: Any) -> object:
    customer = (
        await house.billing.GetCustomer(pb.GetCustomerRequest(customer_id=chosen.customer_id))
    ).customer
    wallets: dict[str, Any] = {}
    for name, mode in (("live", pb.MODE_LIVE), ("test", pb.MODE_TEST)):
        answer = await house.billing.GetBalance(
            pb.GetBalanceRequest(customer_id=chosen.customer_id, mode=mode)
        )
        wallets[name] = plain(answer.balance)
    return plain(customer) | {"wallets": wallets}


async def set_limits(house: House, chosen: Any) -> object:
    answer = await house.billing.GetCustomer(pb.GetCustomerRequest(customer_id=chosen.customer_id))
    request = pb.UpdateCustomerRequest(
        customer_id=chosen.customer_id,
        limits=_limits(chosen, answer.customer.limits),
        spend_limits=_spend_limits(chosen, answer.customer.spend_limits),
    )
    return plain((await house.billing.UpdateCustomer(request)).customer)


async def suspend(house: House, chosen: Any) -> object:
    return await _set_state(house, chosen.customer_id, pb.CUSTOMER_STATE_SUSPENDED)


async def activate(house: House, chosen: Any) -> object:
    return await _set_state(house, chosen.customer_id, pb.CUSTOMER_STATE_ACTIVE)


async def _set_state(house: House, customer_id: str, state: pb.CustomerState.ValueType) -> object:
    request = pb.UpdateCustomerRequest(customer_id=customer_id, state=state)
    return plain((await house.billing.UpdateCustomer(request)).customer)


def _limits(chosen: Any, present: pb.Limits | None) -> pb.Limits | None:
    given = {name: getattr(chosen, name) for name in _LIMIT_NAMES if getattr(chosen, name) is not None}
    if not given and present is None:
        return None
    limits = pb.Limits()
    if present is not None:
        limits.CopyFrom(present)
    for name, value in given.items():
        setattr(limits, name, value)
    return limits


def _spend_limits(chosen: Any, present: pb.SpendLimits | None) -> pb.SpendLimits | None:
    """What is to change, filled up with what is there; None where nothing is."""
    given = {"day_millis": chosen.day_limit, "month_millis": chosen.month_limit}
    if all(value is None for value in given.values()):
        return None
    limits = pb.SpendLimits()
    if present is not None:
        limits.CopyFrom(present)
    for name, value in given.items():
        if value is not None:
            setattr(limits, name, value)
    return limits


COMMANDS = (
    Command(
        "customers",
        "create",
        "Make a customer of a storefront, with an empty live wallet and a test wallet of play credit.",
        create,
        (
            argument("--storefront", required=True, help="leonardo, …"),
            argument("--name", required=True, help="as you will look for it"),
            *_LIMITS,
            *SPEND_LIMITS,
            argument(
                "--idempotency-key", help="repeating the command with the same key makes no second customer"
            ),
        ),
        '--storefront leonardo --name "Example Ltd" --running-jobs 20',
    ),
    Command(
        "customers",
        "list",
        "List customers in the order in which they came.",
        list_all,
        (
            argument("--storefront", default="", help="only this storefront's"),
            argument("--after", default="", metavar="CUSTOMER_ID", help="go on after this one"),
            LIMIT,
        ),
        "--storefront leonardo",
    ),
    Command(
        "customers", "show", "Show a customer with limits and wallets.", show, (_CUSTOMER,), "cus_your_id"
    ),
    Command(
        "customers",
        "limits",
        "Change what a customer may do at once, and spend; what is not named stays.",
        set_limits,
        (_CUSTOMER, *_LIMITS, *SPEND_LIMITS),
        "cus_your_id --requests-per-minute 600 --queued-jobs 500 --day-limit 1000",
    ),
    Command(
        "customers",
        "suspend",
        "Refuse a customer's keys from now on. Running jobs end as they would.",
        suspend,
        (_CUSTOMER,),
        "cus_your_id",
    ),
    Command(
        "customers",
        "activate",
        "Accept a suspended customer's keys again.",
        activate,
        (_CUSTOMER,),
        "cus_your_id",
    ),
)
