"""`accounts`: the provider accounts that do the work."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from services.admin.command import Command, argument, count, millis, moment_ms, pair, rank
from services.admin.connection import House
from services.admin.rendering import Table, plain, table
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb

_ACCOUNT = argument("account_id", metavar="ACCOUNT_ID")
_TUNING = (
    argument("--concurrency", type=count, help="jobs at once; without it what the provider says"),
    argument("--balance", type=millis, metavar="CREDITS", help="in the provider's own unit"),
    argument("--renews", type=moment_ms, metavar="TIME", help="when its credit renews or expires"),
    argument("--priority", type=rank, help="higher is taken first, under the policy `priority`"),
    argument("--weight", type=count, help="a larger share, under the policy `spread`"),
    argument("--model", action="append", metavar="NAME", help="only these models; may be repeated"),
    argument(
        "--option", action="append", type=pair, metavar="NAME=VALUE", help="provider-specific, not secret"
    ),
)


async def add(house: House, chosen: Any) -> object:
    request = pb.CreateAccountRequest(
        provider=chosen.provider,
        label=chosen.label,
        credentials={name: _read_secret(name) for name in chosen.credential or ()},
        models=chosen.model or (),
        serves_live=not chosen.test_only,
        serves_test=chosen.provider == "sandbox",
        # Without a number, what the provider says of itself when it is asked.
        concurrency_limit=chosen.concurrency or int(chosen.unchecked),
        balance_millis=chosen.balance or 0,
        renews_at_ms=chosen.renews or 0,
        priority=chosen.priority or 0,
        weight=chosen.weight or 1,
        options=dict(chosen.option or ()),
        unchecked=chosen.unchecked,
    )
    return plain((await house.pool.CreateAccount(request)).account)


async def check(house: House, chosen: Any) -> object:
    answer = await house.pool.CheckAccount(pb.CheckAccountRequest(account_id=chosen.account_id))
    return {"passed": answer.passed, "detail": answer.detail} | plain(answer.account)


async def replace_credentials(house: House, chosen: Any) -> object:
    request = pb.ReplaceCredentialsRequest(
        account_id=chosen.account_id,
        credentials={name: _read_secret(name) for name in chosen.credential},
        unchecked=chosen.unchecked,
    )
    return plain((await house.pool.ReplaceCredentials(request)).account)


async def headroom(house: House, chosen: Any) -> Table:
    del chosen
    answer = await house.pool.GetHeadroom(pb.GetHeadroomRequest())
    rows = [
        {
            "model": one.model,
            "accounts": one.accounts,
            "available_usd": one.available_usd_micros / 1_000_000,
            "spent_usd_in_the_last_hour": one.spent_usd_micros_per_hour / 1_000_000,
            "hours_left": "no end" if one.unlimited else round(one.headroom_minutes / 60, 1),
        }
        for one in answer.models
    ]
    return Table(rows, ("model", "accounts", "available_usd", "spent_usd_in_the_last_hour", "hours_left"))


async def list_all(house: House, chosen: Any) -> Table:
    del chosen
    answer = await house.pool.ListAccounts(pb.ListAccountsRequest())
    columns = ("account_id", "label", "provider", "state", "leases", "slots", "balance_millis")
    rows = table(answer.accounts, *columns, "leased_millis", "breakers")
    for row in rows.rows:
        row["breakers"] = [f"{b['model'] or 'all'}: {b['state']}" for b in row["breakers"]]  # type: ignore[index]  # plain() makes dicts
    return rows


async def show(house: House, chosen: Any) -> object:
    return plain((await house.pool.GetAccount(pb.GetAccountRequest(account_id=chosen.account_id))).account)


async def update(house: House, chosen: Any) -> object:
    request = pb.UpdateAccountRequest(
        account_id=chosen.account_id,
        concurrency_limit=chosen.concurrency,
        balance_millis=chosen.balance,
        renews_at_ms=chosen.renews,
        priority=chosen.priority,
        weight=chosen.weight,
        models=pb.Models(models=chosen.model) if chosen.model else None,
        options=pb.Options(options=dict(chosen.option)) if chosen.option else None,
    )
    return plain((await house.pool.UpdateAccount(request)).account)


async def activate(house: House, chosen: Any) -> object:
    return await _set_state(house, chosen.account_id, pb.ACCOUNT_STATE_ACTIVE)


async def drain(house: House, chosen: Any) -> object:
    return await _set_state(house, chosen.account_id, pb.ACCOUNT_STATE_DRAINING)


async def disable(house: House, chosen: Any) -> object:
    return await _set_state(house, chosen.account_id, pb.ACCOUNT_STATE_DISABLED)


async def reset(house: House, chosen: Any) -> object:
    return plain(
        (await house.pool.ResetAccount(pb.ResetAccountRequest(account_id=chosen.account_id))).account
    )


async def _set_state(house: House, account_id: str, state: pb.AccountState.ValueType) -> object:
    request = pb.UpdateAccountRequest(account_id=account_id, state=state)
    return plain((await house.pool.UpdateAccount(request)).account)


def _read_secret(name: str) -> str:
    """From the keyboard without echo, or a line of standard input; never from the command line."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{name}: ")
    return sys.stdin.readline().rstrip("\n")


_UNCHECKED = argument(
    "--unchecked", action="store_true", help="store them without asking the provider whether they are good"
)

COMMANDS = (
    Command(
        "accounts",
        "add",
        "Add a provider account. Its credentials are asked for, tried, sealed, and never readable again.",
        add,
        (
            argument("--provider", required=True, help="sandbox, …"),
            argument("--label", required=True, help="your own name for it, unique"),
            argument("--credential", action="append", metavar="NAME", help="asks for it; may be repeated"),
            argument("--test-only", action="store_true", help="never used for live jobs"),
            _UNCHECKED,
            *_TUNING,
        ),
        "--provider sandbox --label spare --concurrency 4 --balance 100000 --option pace_ms=500",
    ),
    Command(
        "accounts",
        "check",
        "Ask the provider whether the account's credentials are good; a pass takes it back.",
        check,
        (_ACCOUNT,),
        "acc_your_id",
    ),
    Command(
        "accounts",
        "replace-credentials",
        "Seal other credentials in the place of the account's, once the provider accepts them.",
        replace_credentials,
        (
            _ACCOUNT,
            argument(
                "--credential",
                action="append",
                metavar="NAME",
                required=True,
                help="asks for it; name all that it needs",
            ),
            _UNCHECKED,
        ),
        "acc_your_id --credential api_key",
    ),
    Command(
        "accounts", "headroom", "How long the accounts last, by model, at the last hour's pace.", headroom
    ),
    Command("accounts", "list", "List accounts with load, balance and open breakers.", list_all),
    Command("accounts", "show", "Show one account.", show, (_ACCOUNT,), "acc_your_id"),
    Command(
        "accounts",
        "update",
        "Change an account; what is not named stays.",
        update,
        (_ACCOUNT, *_TUNING),
        "acc_your_id --concurrency 8",
    ),
    Command("accounts", "drain", "Take no new jobs, lose none.", drain, (_ACCOUNT,), "acc_your_id"),
    Command("accounts", "disable", "Use the account no more.", disable, (_ACCOUNT,), "acc_your_id"),
    Command(
        "accounts",
        "activate",
        "Use a drained or disabled account again.",
        activate,
        (_ACCOUNT,),
        "acc_your_id",
    ),
    Command("accounts", "reset", "Close an account's breakers.", reset, (_ACCOUNT,), "acc_your_id"),
)
