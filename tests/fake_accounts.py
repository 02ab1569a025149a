"""Users, mails and price lists of the stand-in for billing: everything in memory, nothing hashed."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from services import billing as billing_package
from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as billing

NOW_MS = 1_782_727_200_000


@dataclass
class FakeAccounts:
    """Users with their passwords, and the tokens that they were given or mailed."""

    users: dict[str, tuple[billing.User, str]] = field(default_factory=dict)
    # Access token to address.
    tokens: dict[str, str] = field(default_factory=dict)
    mailed: list[tuple[str, str]] = field(default_factory=list)
    logins: int = 0
    price_questions: int = 0
    refusal: ServiceError | None = None

    async def SignUp(self, request: billing.SignUpRequest, context: Any) -> billing.SignUpResponse:
        self._refuse()
        if request.email in self.users:
            raise ServiceError(Kind.INVALID_ARGUMENT, "SIGN_UP_REFUSED", "known", {"field": "email"})
        user = billing.User(
            user_id=17 + len(self.users),
            email=request.email,
            full_name=request.full_name,
            created_at_ms=NOW_MS,
            customer_id=f"cus_user_{17 + len(self.users)}",
            storefront=request.storefront,
        )
        self.users[request.email] = (user, request.password)
        return billing.SignUpResponse(user=user)

    async def LogIn(self, request: billing.LogInRequest, context: Any) -> billing.LogInResponse:
        self.logins += 1
        self._refuse()
        user, password = self.users.get(request.email, (None, ""))
        if user is None or password != request.password:
            raise ServiceError(Kind.UNAUTHENTICATED, "INVALID_LOGIN", "wrong")
        token = f"eyJhbGciOiJIUzI1NiJ9.{user.user_id}.{len(self.tokens)}"
        self.tokens[token] = user.email
        return billing.LogInResponse(access_token=token, user=user)

    async def GetUser(self, request: billing.GetUserRequest, context: Any) -> billing.GetUserResponse:
        self._refuse()
        for user, _ in self.users.values():
            if user.customer_id == request.customer_id:
                return billing.GetUserResponse(user=user)
        raise ServiceError(Kind.NOT_FOUND, "USER_NOT_FOUND", "nobody")

    async def RequestPasswordReset(
        self, request: billing.RequestPasswordResetRequest, context: Any
    ) -> billing.RequestPasswordResetResponse:
        self._refuse()
        if request.email in self.users:
            self.mailed.append((request.email, f"reset-token-{len(self.mailed)}"))
        return billing.RequestPasswordResetResponse()

    async def ResetPassword(
        self, request: billing.ResetPasswordRequest, context: Any
    ) -> billing.ResetPasswordResponse:
        self._refuse()
        for email, token in self.mailed:
            if token == request.token:
                self.mailed.remove((email, token))
                self.users[email] = (self.users[email][0], request.password)
                self.tokens = {kept: owner for kept, owner in self.tokens.items() if owner != email}
                return billing.ResetPasswordResponse()
        raise ServiceError(Kind.INVALID_ARGUMENT, "INVALID_RESET_TOKEN", "unknown", {"field": "token"})

    async def GetPriceList(
        self, request: billing.GetPriceListRequest, context: Any
    ) -> billing.GetPriceListResponse:
        self.price_questions += 1
        self._refuse()
        return shipped_price_list(request.storefront)

    def owner_of(self, token: str) -> billing.AuthenticateResponse | None:
        """Who an access token belongs to, if anybody."""
        email = self.tokens.get(token)
        if email is None:
            return None
        user = self.users[email][0]
        return billing.AuthenticateResponse(
            customer_id=user.customer_id,
            storefront=user.storefront,
            mode=billing.MODE_LIVE,
            limits=billing.Limits(running_jobs=4, queued_jobs=16),
            user_id=user.user_id,
        )

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


def shipped_price_list(storefront: str) -> billing.GetPriceListResponse:
    """The price list that comes with the house."""
    file = Path(billing_package.__file__).parent / "price_lists" / f"{storefront}.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
    return billing.GetPriceListResponse(
        version=table["version"],
        prices=[
            billing.Price(
                sku=row["sku"],
                unit_price_millis=int(row["credits"] * 1000),
                unit=row["unit"],
                title=row["title"],
            )
            for row in table["prices"]
        ],
        packages=[
            billing.Package(
                package_id=row["id"],
                title=row["title"],
                credit_millis=int(row["credits"] * 1000),
                price=row["price"],
                currency=row["currency"],
            )
            for row in table.get("packages", ())
        ],
    )
