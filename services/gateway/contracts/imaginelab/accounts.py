"""Wire and inward of accounts: exactly the public JSON, and the checks that need nobody else."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from services.gateway import errors, reading
from services.gateway.contracts.imaginelab.errors import wrong_login
from services.gateway.contracts.imaginelab.wire import Moment
from services.gen.billing.v1 import billing_pb2

_NAME_LIMIT: Final = 200
# The longest address that mail can be sent to.
_EMAIL_LIMIT: Final = 254
_PASSWORD_LIMITS: Final = (8, 128)
_TOKEN_LIMIT: Final = 200
# What cannot be an address on sight; whether there is such a mailbox, only a mail can tell.
_EMAIL: Final = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f]+\.[^\s@\x00-\x1f\x7f.]+")

Email = Annotated[
    str, Meta(description="An email address.", extra_json_schema={"format": "email", "maxLength": 254})
]
Password = Annotated[
    str, Meta(description="8 to 128 characters.", extra_json_schema={"minLength": 8, "maxLength": 128})
]


class SignUpRequest(msgspec.Struct, kw_only=True, frozen=True):
    """A user to be."""

    email: Email
    password: Password
    full_name: Annotated[
        str | None, Meta(description="At most 200 characters.", extra_json_schema={"maxLength": 200})
    ] = None


class LoginForm(msgspec.Struct, kw_only=True, frozen=True):
    """The password flow of OAuth 2."""

    username: Annotated[str, Meta(description="The email address.")]
    password: Annotated[str, Meta(description="The password.")]
    grant_type: Annotated[str, Meta(description="`password`, if it is sent at all.")] = "password"


class ForgotPasswordRequest(msgspec.Struct, kw_only=True, frozen=True):
    """Whose password was forgotten."""

    email: Email


class ResetPasswordRequest(msgspec.Struct, kw_only=True, frozen=True):
    """A new password for who got the mail."""

    token: Annotated[str, Meta(description="From the mail; good once, and for an hour.")]
    password: Password


class UserView(msgspec.Struct, frozen=True):
    """A user."""

    id: Annotated[int, Meta(description="A random number below 2^53.")]
    email: Annotated[str, Meta(description="The email address.")]
    full_name: Annotated[str | None, Meta(description="Null where none was given.")]
    created_at: Moment


class Token(msgspec.Struct, frozen=True):
    """What logging in answers."""

    access_token: Annotated[
        str, Meta(description="A JWT: send it as `Authorization: Bearer …`. Good for a day.")
    ]
    token_type: Annotated[str, Meta(description="Always `bearer`.")]


class Notice(msgspec.Struct, frozen=True):
    """That something was done."""

    message: Annotated[str, Meta(description="For people.")]


_sign_up_decoder = msgspec.json.Decoder(SignUpRequest)
_forgot_decoder = msgspec.json.Decoder(ForgotPasswordRequest)
_reset_decoder = msgspec.json.Decoder(ResetPasswordRequest)


def read_sign_up(body: bytes, storefront: str) -> billing_pb2.SignUpRequest:
    """Who wants to sign up. Raises MALFORMED_REQUEST."""
    wire = reading.parsed(body, _sign_up_decoder)
    full_name = (wire.full_name or "").strip()
    return billing_pb2.SignUpRequest(
        storefront=storefront,
        email=_email(wire.email),
        password=_password(wire.password),
        full_name=reading.text(full_name, "full_name", _NAME_LIMIT) if full_name else "",
    )


def read_login(wire: LoginForm, storefront: str) -> billing_pb2.LogInRequest:
    """Who says to be whom. What can be no address or no password is wrong in the same way as any other."""
    if wire.grant_type not in {"password", ""}:
        raise errors.malformed_request("grant_type must be password.", "grant_type")
    email = wire.username.strip()
    for name, value in (("username", email), ("password", wire.password)):
        if not value:
            raise errors.malformed_request(f"{name} is required.", name)
    if len(email) > _EMAIL_LIMIT or len(wire.password) > _PASSWORD_LIMITS[1]:
        raise wrong_login()
    return billing_pb2.LogInRequest(storefront=storefront, email=email, password=wire.password)


def read_forgotten(body: bytes) -> str:
    """Whose password was forgotten. Raises MALFORMED_REQUEST."""
    return _email(reading.parsed(body, _forgot_decoder).email)


def read_reset(body: bytes, storefront: str) -> billing_pb2.ResetPasswordRequest:
    """A new password. Raises MALFORMED_REQUEST."""
    wire = reading.parsed(body, _reset_decoder)
    return billing_pb2.ResetPasswordRequest(
        storefront=storefront,
        token=reading.text(wire.token, "token", _TOKEN_LIMIT),
        password=_password(wire.password),
    )


def _email(value: str) -> str:
    trimmed = value.strip()
    if len(trimmed) > _EMAIL_LIMIT or not _EMAIL.fullmatch(trimmed):
        raise errors.malformed_request("email must be an email address.", "email")
    return trimmed


def _password(value: str) -> str:
    shortest, longest = _PASSWORD_LIMITS
    if not shortest <= len(value) <= longest:
        raise errors.malformed_request(f"password must have {shortest} to {longest} characters.", "password")
    return value
