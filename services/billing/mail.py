"""Mails to users: over SMTP where the operator has set a server, else into a folder on this machine."""

from __future__ import annotations

import asyncio
import os
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Protocol

from services.chassis.ids import new_id
from services.chassis.settings import Secret

STARTTLS, TLS, PLAINTEXT = "starttls", "tls", "none"

# A server that greylists answers at once; one that does not answer for so long is not there.
_TIMEOUT_S = 10.0
# Letters of any script in an address stay what they are.
_AS_TYPED = policy.default.clone(utf8=True)
# Nobody reads it; it must only look like an address.
_LOCAL_SENDER = "atelier@localhost"


@dataclass(frozen=True, slots=True)
class Mail:
    """A text for one address. What it says is a secret between the two."""

    to: str
    subject: str
    text: str = field(repr=False)


class Mailer(Protocol):
    """Takes mails away."""

    async def send(self, mail: Mail) -> None:
        """Raises OSError or SMTPException where the mail could not be handed over."""
        ...


class Outbox:
    """A folder of `.eml` files that only its owner can read: for one machine, and for trying things out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, mail: Mail) -> None:
        await asyncio.to_thread(self._lay, _message(mail, _LOCAL_SENDER))

    def _lay(self, message: EmailMessage) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = self._folder / f"{new_id('mail')}.eml"
        # Under another name until it is whole: whoever watches the folder never reads half a mail.
        unfinished = place.with_suffix(".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.as_bytes(policy=_AS_TYPED))
        unfinished.rename(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """A mail server; `security` is STARTTLS, TLS or PLAINTEXT."""

    host: str
    port: int
    security: str
    sender: str
    user: str = ""
    password: Secret | None = None
    # Certificates that are trusted; tests have one of their own.
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context

    async def send(self, mail: Mail) -> None:
        await asyncio.to_thread(self._deliver, _message(mail, self.sender))

    def _deliver(self, message: EmailMessage) -> None:
        with self._connected() as server:
            if self.security == STARTTLS:
                server.starttls(context=self.trust())
            if self.user:
                server.login(self.user, self.password.reveal() if self.password else "")
            server.send_message(message)

    def _connected(self) -> smtplib.SMTP:
        if self.security == TLS:
            return smtplib.SMTP_SSL(self.host, self.port, timeout=_TIMEOUT_S, context=self.trust())
        return smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT_S)


def _message(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    # Written by a program: no answering machine may answer it.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message
