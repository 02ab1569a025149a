"""Routes of accounts: signing up, logging in, and passwords that were forgotten."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import idna

from services.chassis.errors import ServiceError
from services.gateway import pairs, reading
from services.gateway.attempts import Allowance, network_of
from services.gateway.contract import Answer, Call, Operation, Reply, Route
from services.gateway.contracts.imaginelab import accounts, outward
from services.gateway.contracts.imaginelab.accounts import (
    ForgotPasswordRequest,
    LoginForm,
    Notice,
    ResetPasswordRequest,
    SignUpRequest,
    Token,
    UserView,
)
from services.gateway.contracts.imaginelab.errors import too_many_attempts

# Wrong logins only: a client that logs in for each request is slow, but no burglar. At this rate the weakest password
# that is taken lasts for centuries, and its owner is locked out for five minutes at most.
_LOGIN_OF_ADDRESS: Final = Allowance("login/address", 10, 300)
_LOGIN_FROM_CLIENT: Final = Allowance("login/client", 100, 300)
# Each may be a mail into somebody's letter box.
_FORGOT_OF_ADDRESS: Final = Allowance("forgot/address", 5, 900)
_FORGOT_FROM_CLIENT: Final = Allowance("forgot/client", 30, 900)
# Each costs a hash of some ten milliseconds, and the first one a customer.
_SIGN_UP_FROM_CLIENT: Final = Allowance("signup/client", 100, 60)
_RESET_FROM_CLIENT: Final = Allowance("reset/client", 30, 300)

_MAIL_SENT: Final = "If this address is known, a mail with further steps is on its way to it."
_PASSWORD_SET: Final = "The password was changed. Please log in again."  # noqa: S105 - a sentence


def _take(call: Call, allowance: Allowance, subject: str) -> None:
    window = call.house.attempts.take(allowance, subject)
    if not window.allowed:
        raise too_many_attempts(window.limit, window.reset_s)


def _client(call: Call) -> str:
    return network_of(call.client_address)


def _address(email: str) -> str:
    """However an address is written, its attempts are counted together."""
    local, _, domain = unicodedata.normalize("NFKC", email).rpartition("@")
    try:
        domain = idna.encode(domain.rstrip("."), uts46=True).decode()
    except idna.IDNAError:
        # No mailbox can be there, so nothing is guessed.
        return email
    return f"{local}@{domain}".casefold()


async def sign_up(call: Call) -> Answer:
    reading.require_json(call.request)
    request = accounts.read_sign_up(call.body.json, call.contract.name)
    _take(call, _SIGN_UP_FROM_CLIENT, _client(call))
    return Answer(201, outward.user(await call.house.backends.sign_up(request)))


async def log_in(call: Call) -> Answer:
    form = pairs.form(call.request, call.body.json, LoginForm)
    request = accounts.read_login(form, call.contract.name)
    address, client = _address(request.email), _client(call)
    # Taken before the answer is known, so that a thousand guesses at once are a thousand.
    _take(call, _LOGIN_FROM_CLIENT, client)
    _take(call, _LOGIN_OF_ADDRESS, address)
    try:
        token = await call.house.backends.log_in(request)
    except ServiceError as refusal:
        if refusal.reason != "INVALID_LOGIN":
            _give_back(call, address, client)
        raise
    _give_back(call, address, client)
    return Answer(200, Token(token, "bearer"))


def _give_back(call: Call, address: str, client: str) -> None:
    call.house.attempts.give_back(_LOGIN_FROM_CLIENT, client)
    call.house.attempts.give_back(_LOGIN_OF_ADDRESS, address)


async def get_me(call: Call) -> Answer:
    return Answer(200, outward.user(await call.house.backends.user(call.caller)))


async def forgot_password(call: Call) -> Answer:
    reading.require_json(call.request)
    email = accounts.read_forgotten(call.body.json)
    _take(call, _FORGOT_FROM_CLIENT, _client(call))
    _take(call, _FORGOT_OF_ADDRESS, _address(email))
    await call.house.backends.request_password_reset(call.contract.name, email)
    return Answer(200, Notice(_MAIL_SENT))


async def reset_password(call: Call) -> Answer:
    reading.require_json(call.request)
    request = accounts.read_reset(call.body.json, call.contract.name)
    _take(call, _RESET_FROM_CLIENT, _client(call))
    await call.house.backends.reset_password(request)
    return Answer(200, Notice(_PASSWORD_SET))


_USER: Final[dict[str, Any]] = {
    "id": 17,
    "email": "ada@example.com",
    "full_name": "Ada Lovelace",
    "created_at": "2026-06-07T11:58:00Z",
}
_SIGN_UP: Final = Operation(
    summary="Sign up",
    description="Makes a user with an empty wallet. An address can be signed up once; that it was, is not told.",
    request=SignUpRequest,
    example={"email": "ada@example.com", "password": "correct horse battery", "full_name": "Ada Lovelace"},
    reply=Reply(201, "The user was made.", UserView, {"user": _USER}),
    errors=("400", "413", "429", "503"),
)
_LOG_IN: Final = Operation(
    summary="Log in",
    description="The password flow of OAuth 2: a form, not JSON. The token is for the live wallet, lasts for a day, and ends "
    "when the password changes.",
    request=LoginForm,
    example={"username": "ada@example.com", "password": "correct horse battery"},
    reply=Reply(
        200,
        "Logged in.",
        Token,
        {
            "token": {
                "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxNyJ9.…",
                "token_type": "bearer",
            }
        },
    ),
    errors=("400", "401", "413", "429", "503"),
)
_ME: Final = Operation(
    summary="Get the user",
    description="Who the token belongs to.",
    reply=Reply(200, "The user.", UserView, {"user": _USER}),
    errors=("401", "404", "429", "503"),
)
_FORGOT: Final = Operation(
    summary="Ask for a new password",
    description="Sends a mail with a token, if the address is known. The answer is the same either way.",
    request=ForgotPasswordRequest,
    example={"email": "ada@example.com"},
    reply=Reply(200, "Whether a mail was sent is not told.", Notice, {"notice": {"message": _MAIL_SENT}}),
    errors=("400", "413", "429", "503"),
)
_RESET: Final = Operation(
    summary="Set a new password",
    description="With the token of the mail, which is good once. Every login of the user ends; API keys go on working.",
    request=ResetPasswordRequest,
    example={"token": "q1w2e3r4t5y6u7i8o9p0", "password": "staple battery horse"},
    reply=Reply(200, "The password was changed.", Notice, {"notice": {"message": _PASSWORD_SET}}),
    errors=("400", "413", "429", "503"),
)

ROUTES: Final = (
    Route("signUp", "POST", "/api/v1/auth/signup", sign_up, _SIGN_UP, public=True, reads_body=True),
    Route("logIn", "POST", "/api/v1/auth/login", log_in, _LOG_IN, public=True, form=True),
    Route("getMe", "GET", "/api/v1/auth/me", get_me, _ME),
    Route(
        "forgotPassword",
        "POST",
        "/api/v1/auth/forgot-password",
        forgot_password,
        _FORGOT,
        public=True,
        reads_body=True,
    ),
    Route(
        "resetPassword",
        "POST",
        "/api/v1/auth/reset-password",
        reset_password,
        _RESET,
        public=True,
        reads_body=True,
    ),
)
