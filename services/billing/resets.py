"""Mailing tokens for new passwords, after the answer: how long it takes tells the asker nothing."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from smtplib import SMTPException
from typing import Final, NamedTuple, Self

from prometheus_client import Counter

from services.billing import errors, users
from services.billing.emails import Email
from services.billing.mail import Mail, Mailer
from services.billing.prices import Storefront, Storefronts
from services.billing.store import users as rows
from services.chassis.clock import Clock
from services.chassis.database import Database

log = logging.getLogger(__name__)

# Some minutes of a slow mail server; beyond it everybody is told to come back.
WAITING_LIMIT: Final = 1_000
# Mails on their way at once: a server that hangs holds up its own connections, not all of them.
CARRIERS: Final = 4
# A server that is being restarted is back after the second pause.
PAUSES_S: Final = (2.0, 15.0)
# What is under way may be finished when the service stops; what waits is asked for again.
_CLOSING_S: Final = 5.0

_MAILS = Counter("atelier_billing_mails_total", "Mails to users, by result: sent or failed.", ["result"])

_TEXT = """Hello,

somebody asked for a new password for your account at {title}. If it was you, {how}

{what}

It works once, and for one hour. If it was not you, forget this mail: nothing has changed.
"""
_WITH_LINK = "set it here:"
_WITHOUT_LINK = "send this token together with the new password:"


class _Asked(NamedTuple):
    storefront: str
    email: Email


class Resets:
    """A bounded queue of requests for a new password, and the carriers that work it off while entered."""

    def __init__(self, database: Database, storefronts: Storefronts, mailer: Mailer, clock: Clock) -> None:
        self._database = database
        self._storefronts = storefronts
        self._mailer = mailer
        self._clock = clock
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue(WAITING_LIMIT)
        self._carriers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        # An empty context: what they do belongs to no one request.
        self._carriers = [
            asyncio.create_task(self._carry(), context=contextvars.Context()) for _ in range(CARRIERS)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(_CLOSING_S):
                await self.settled()
        except TimeoutError:
            log.warning("mail.left", extra={"mails": self._waiting.qsize()})
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    def ask(self, storefront: str, email: Email) -> None:
        """Mail a token to this address later, if a user has it. Raises ServiceError OVERLOADED, whoever asks."""
        try:
            self._waiting.put_nowait(_Asked(storefront, email))
        except asyncio.QueueFull:
            raise errors.too_busy() from None

    async def settled(self) -> None:
        """Returns once nothing waits and nothing is on its way."""
        await self._waiting.join()

    async def _carry(self) -> None:
        while True:
            asked = await self._waiting.get()
            try:
                await self._answer(asked)
            except Exception:
                _MAILS.labels("failed").inc()
                log.exception("mail.failed")
            finally:
                self._waiting.task_done()

    async def _answer(self, asked: _Asked) -> None:
        login = await self._database.read(lambda connection: rows.by_address(connection, *_named(asked)))
        if login is None or not login.customer_active:
            return
        token = users.new_reset_token()
        expires_at_ms = self._clock.now_ms() + users.RESET_LIFETIME_MS
        user_id, digest = login.user.user_id, users.reset_digest(token)
        await self._database.write(
            lambda connection: rows.allow_reset(connection, user_id, digest, expires_at_ms)
        )
        # To the address that was signed up, never to the one that was typed: two scripts may look like one.
        mail = _mail(self._storefronts.named(asked.storefront), login.user.email, token)
        await self._send(mail, login.user.customer_id)

    async def _send(self, mail: Mail, customer_id: str) -> None:
        for pause_s in (*PAUSES_S, None):
            try:
                await self._mailer.send(mail)
            except (OSError, SMTPException) as fault:
                log.warning("mail.delayed", extra={"customer_id": customer_id, "fault": type(fault).__name__})
                if pause_s is None:
                    _MAILS.labels("failed").inc()
                    return
                await self._clock.sleep(pause_s)
            else:
                _MAILS.labels("sent").inc()
                return


def _named(asked: _Asked) -> tuple[str, str]:
    return asked.storefront, asked.email.address


def _mail(storefront: Storefront, to: str, token: str) -> Mail:
    what = storefront.reset_url.replace("{token}", token) or token
    how = _WITH_LINK if storefront.reset_url else _WITHOUT_LINK
    text = _TEXT.format(title=storefront.title, how=how, what=what)
    return Mail(to=to, subject=f"Your new password at {storefront.title}", text=text)
