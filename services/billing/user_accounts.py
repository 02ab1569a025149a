"""Signing up, signing in, and new passwords."""

from __future__ import annotations

import logging

from prometheus_client import Counter

from services.billing import admission, emails, errors, passwords, users
from services.billing.access_tokens import AccessTokens
from services.billing.passwords import Passwords
from services.billing.prices import Storefronts
from services.billing.resets import Resets
from services.billing.store import users as rows
from services.billing.users import User
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.settings import Secret
from services.gen.billing.v1 import billing_pb2 as pb

log = logging.getLogger(__name__)

_LOGINS = Counter(
    "atelier_billing_logins_total", "Attempts to sign in, by result: ok or refused.", ["result"]
)


class UserAccounts:
    """What users do about themselves. Nothing here tells whether an address is known."""

    def __init__(
        self,
        database: Database,
        storefronts: Storefronts,
        hashed: Passwords,
        tokens: AccessTokens,
        resets: Resets,
        clock: Clock,
    ) -> None:
        self._database = database
        self._storefronts = storefronts
        self._passwords = hashed
        self._tokens = tokens
        self._resets = resets
        self._clock = clock

    async def sign_up(self, request: pb.SignUpRequest) -> User:
        """Raises ServiceError INVALID_REQUEST naming the field, SIGN_UP_REFUSED, UNKNOWN_STOREFRONT, OVERLOADED."""
        storefront = self._storefronts.named(request.storefront)
        email, password = emails.read(request.email), _new_password(request.password)
        if email is None:
            raise errors.invalid_request("email", "is not an address that mail can be sent to")
        full_name = admission.text("full_name", request.full_name, admission.MAX_NAME_CHARACTERS)
        # Before it is known whether the address is taken, so that being refused takes as long.
        password_hash = await self._passwords.hash(password)
        new = users.signed_up(storefront, email, full_name, password_hash, self._clock.now_ms())
        user = await self._database.write(
            lambda connection: rows.sign_up(connection, new, self._clock.now_ms)
        )
        log.info("user.signed_up", extra={"customer_id": user.customer_id})
        return user

    async def log_in(self, request: pb.LogInRequest) -> tuple[str, int, User]:
        """A token, when it ends in milliseconds, and whose it is.

        Raises ServiceError INVALID_LOGIN, UNKNOWN_STOREFRONT, OVERLOADED.
        """
        storefront = self._storefronts.named(request.storefront)
        email, password = emails.read(request.email), Secret(request.password)
        if email is None or not passwords.acceptable(password):
            # Nobody can have signed up with these; whether others have is not told by the time that it takes.
            raise _refused()
        login = await self._database.read(
            lambda connection: rows.by_address(connection, storefront.name, email.address)
        )
        verdict = await self._passwords.compare(login.password_hash if login else None, password)
        if login is None or not verdict.right or not login.customer_active:
            raise _refused()
        user, old_hash, new_hash = login.user, login.password_hash, verdict.new_hash
        if new_hash is not None:
            await self._database.write(
                lambda connection: rows.rehash(connection, user.user_id, old_hash, new_hash)
            )
        _LOGINS.labels("ok").inc()
        token, expires_at_ms = self._tokens.issue(
            user.user_id, user.storefront, login.token_version, self._clock.now_ms()
        )
        return token, expires_at_ms, user

    async def find(self, request: pb.GetUserRequest) -> User:
        """Raises ServiceError USER_NOT_FOUND."""
        user_id = request.user_id
        customer_id = "" if user_id else admission.identifier("customer_id", request.customer_id)
        return await self._database.read(lambda connection: rows.find(connection, user_id, customer_id))

    def request_reset(self, request: pb.RequestPasswordResetRequest) -> None:
        """Raises ServiceError INVALID_REQUEST, UNKNOWN_STOREFRONT, OVERLOADED; never whether the address is known."""
        storefront = self._storefronts.named(request.storefront)
        email = emails.read(request.email)
        if email is None:
            raise errors.invalid_request("email", "is not an address that mail can be sent to")
        self._resets.ask(storefront.name, email)

    async def reset(self, request: pb.ResetPasswordRequest) -> None:
        """Raises ServiceError INVALID_RESET_TOKEN, INVALID_REQUEST, UNKNOWN_STOREFRONT, OVERLOADED."""
        name, token = self._storefronts.named(request.storefront).name, request.token
        password = _new_password(request.password)
        if not 0 < len(token) <= users.MAX_RESET_CHARACTERS:
            raise errors.invalid_reset_token()
        digest, now_ms = users.reset_digest(token), self._clock.now_ms()
        # Only who holds a token costs a hash.
        known = await self._database.read(
            lambda connection: rows.resettable(connection, name, digest, now_ms)
        )
        if known is None:
            raise errors.invalid_reset_token()
        password_hash = await self._passwords.hash(password)
        now_ms = self._clock.now_ms()
        await self._database.write(
            lambda connection: rows.reset(connection, name, digest, password_hash, now_ms)
        )
        log.info("user.password_reset", extra={"user_id": known})


def _refused() -> Exception:
    _LOGINS.labels("refused").inc()
    return errors.invalid_login()


def _new_password(text: str) -> Secret:
    password = Secret(text)
    if not passwords.acceptable(password):
        raise errors.invalid_request(
            "password", f"must be {passwords.MIN_CHARACTERS} to {passwords.MAX_CHARACTERS} characters"
        )
    return password
