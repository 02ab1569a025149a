"""`users`: who signs in with a password."""

from __future__ import annotations

from typing import Any

from services.admin.command import Command, argument, identity
from services.admin.connection import House
from services.admin.rendering import plain
from services.gen.billing.v1 import billing_pb2 as pb


async def show(house: House, chosen: Any) -> object:
    user_id, customer_id = chosen.user
    request = pb.GetUserRequest(user_id=user_id, customer_id=customer_id)
    return plain((await house.billing.GetUser(request)).user)


async def mail_reset(house: House, chosen: Any) -> object:
    request = pb.RequestPasswordResetRequest(storefront=chosen.storefront, email=chosen.email)
    await house.billing.RequestPasswordReset(request)
    return "A mail is on its way, if the address is known."


COMMANDS = (
    Command(
        "users",
        "show",
        "Show a user, by the user's number or by the customer's id.",
        show,
        (argument("user", type=identity, metavar="USER_ID|CUSTOMER_ID"),),
        "cus_your_id",
    ),
    Command(
        "users",
        "mail-reset",
        "Mail a user a token for a new password, as if the user had asked for it.",
        mail_reset,
        (
            argument("--storefront", required=True, help="imaginelab, …"),
            argument("--email", required=True, help="the address that was signed up"),
        ),
        "--storefront imaginelab --email ann@example.com",
    ),
)
