"""Routes of credits, and the contract itself; other routes are in files of their own."""

from __future__ import annotations

from typing import Final

from services.gateway.contract import Answer, Call, Contract, Operation, Reply, Route, Tracking
from services.gateway.contracts.imaginelab import outward, routes_accounts, routes_generations
from services.gateway.contracts.imaginelab.errors import ERROR_CODES, error_example, render_error
from services.gateway.contracts.imaginelab.guide import GUIDE
from services.gateway.contracts.imaginelab.wire import ErrorBody, PackageView, Wallet


async def get_wallet(call: Call) -> Answer:
    return Answer(200, outward.wallet(await call.house.backends.balance(call.caller)))


async def list_packages(call: Call) -> Answer:
    prices = await call.house.prices.of(call.contract.name)
    return Answer(200, outward.packages(prices.packages))


_WALLET: Final = Operation(
    summary="Get the wallet",
    description="The wallet of the token's mode. `available` is always `balance` less `reserved`.",
    reply=Reply(200, "The wallet.", Wallet, {"wallet": {"balance": 120, "reserved": 15, "available": 105}}),
    errors=("401", "429", "503"),
)
_PACKAGES: Final = Operation(
    summary="List the packages",
    description="What credits are sold in.",
    reply=Reply(
        200,
        "The packages.",
        list[PackageView],
        {
            "packages": [
                {"id": "starter", "name": "Starter", "credits": 500, "price": "9.00", "currency": "USD"}
            ]
        },
    ),
    errors=("401", "429", "503"),
)

CONTRACT: Final = Contract(
    name="imaginelab",
    title="Atelier Studio API",
    summary="Images, videos, voice, music, infographics and text from a line of words.",
    paths=("/api/v1/auth", "/api/v1/generations", "/api/v1/credits"),
    key_prefixes=("il_live_", "il_test_"),
    # Every JSON object in base64url begins so, and with it every JWT.
    token_prefixes=("eyJ",),
    routes=(
        *routes_accounts.ROUTES,
        *routes_generations.ROUTES,
        Route("getWallet", "GET", "/api/v1/credits/wallet", get_wallet, _WALLET),
        Route("listPackages", "GET", "/api/v1/credits/packages", list_packages, _PACKAGES),
    ),
    render_error=render_error,
    error_body=ErrorBody,
    error_codes=ERROR_CODES,
    error_example=error_example,
    common_errors=("500",),
    guide=GUIDE,
    webhook_form=outward.WEBHOOK_FORMS["image"],
    tracking=Tracking("id", "id", "/api/v1/generations/{id}", "status", ("completed", "failed")),
)
