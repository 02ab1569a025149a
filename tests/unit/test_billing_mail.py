"""Mails: into a folder that only its owner reads, or to a server that must prove itself before it hears a password."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from services.billing import settings as places
from services.billing.mail import PLAINTEXT, STARTTLS, TLS, Mail, Outbox, SmtpServer
from services.billing.settings import Settings
from services.chassis.settings import Secret, SettingsError, load
from tests.egress.certificates import Authority

MAIL = Mail("ann@example.com", "Your new password", "Grüße,\n\n.a line that begins with a dot\nthe-secret\n")


async def test_the_outbox_holds_whole_mails_that_only_their_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "var" / "outbox"
    await Outbox(folder).send(MAIL)
    await Outbox(folder).send(replace(MAIL, to="ben@example.com"))
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == [".eml", ".eml"]
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, *files)] == ["0o700", "0o600", "0o600"]
    read = _read(files[0].read_bytes())
    assert (read["To"], read["Subject"]) == ("ann@example.com", MAIL.subject)
    assert read.get_content() == MAIL.text


def _read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_mail_does_not_print_what_it_says() -> None:
    assert "the-secret" not in repr(MAIL)


@dataclass
class Server:
    """As much of a mail server as a client needs, and what it was told."""

    port: int = 0
    offers_tls: ssl.SSLContext | None = None
    lines: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        while line := (await reader.readline()).decode().strip():
            self.lines.append(line)
            match line.split(" ")[0].upper():
                case "EHLO":
                    writer.write(b"250-mail.test\r\n250-AUTH PLAIN\r\n250-SMTPUTF8\r\n")
                    writer.write(b"250 STARTTLS\r\n" if self.offers_tls else b"250 8BITMIME\r\n")
                case "STARTTLS" if self.offers_tls:
                    writer.write(b"220 go on\r\n")
                    try:
                        await writer.start_tls(self.offers_tls)
                    except (ssl.SSLError, ConnectionError):
                        break
                case "AUTH":
                    writer.write(b"235 welcome\r\n")
                case "DATA":
                    writer.write(b"354 go on\r\n")
                    raw = await reader.readuntil(b"\r\n.\r\n")
                    self.mails.append(raw[:-3].replace(b"\r\n..", b"\r\n.").replace(b"\r\n", b"\n"))
                    writer.write(b"250 taken\r\n")
                case "QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    writer.write(b"250 fine\r\n")
        writer.close()


@asynccontextmanager
async def running(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


def client(server: Server, security: str, trust: ssl.SSLContext | None = None) -> SmtpServer:
    return SmtpServer(
        host="127.0.0.1",
        port=server.port,
        security=security,
        sender="atelier@example.com",
        user="atelier",
        password=Secret("mail password"),
        trust=lambda: trust or ssl.create_default_context(),
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "mail")


def serving(authority: Authority, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.leaf(name))
    return context


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


@pytest.mark.parametrize("security", [STARTTLS, TLS])
async def test_a_mail_reaches_a_server_that_proves_itself(authority: Authority, security: str) -> None:
    context = serving(authority, security)
    server = Server(offers_tls=context if security == STARTTLS else None)
    async with running(server, context if security == TLS else None):
        await client(server, security, trusting(authority)).send(MAIL)
    mail = _read(server.mails[0])
    assert (mail["To"], mail["From"]) == ("ann@example.com", "atelier@example.com")
    assert mail.get_content() == MAIL.text
    assert mail["Auto-Submitted"] == "auto-generated"
    if security == STARTTLS:
        assert server.lines.index("STARTTLS") < next(
            n for n, line in enumerate(server.lines) if "AUTH" in line
        )


async def test_a_server_without_encryption_hears_neither_password_nor_mail() -> None:
    async with running(Server()) as server:
        with pytest.raises(smtplib.SMTPException):
            await client(server, STARTTLS).send(MAIL)
    assert [
        line.split(" ")[0] for line in server.lines if line.split(" ")[0] in {"AUTH", "MAIL", "DATA"}
    ] == []


async def test_a_server_that_cannot_prove_itself_hears_neither_password_nor_mail(
    authority: Authority,
) -> None:
    async with running(Server(), serving(authority, "stranger")) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await client(server, TLS).send(MAIL)
    assert server.lines == []


async def test_an_address_in_another_script_is_written_as_it_is(authority: Authority) -> None:
    async with running(Server()) as server:
        plain = replace(client(server, PLAINTEXT), user="")
        await plain.send(replace(MAIL, to="δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp"))
    assert "\nTo: δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp\n" in server.mails[0].decode()


def settings(tmp_path: Path, **more: str) -> Settings:
    (tmp_path / "secret").write_text("s" * 32)
    given = {"KEY_PEPPER_FILE": str(tmp_path / "secret"), **more}
    return load(Settings, {f"ATELIER_BILLING_{name}": value for name, value in given.items()})


def test_a_mail_server_is_asked_for_all_that_it_needs(tmp_path: Path) -> None:
    places.check_mail(settings(tmp_path))
    places.check_mail(settings(tmp_path, SMTP_HOST="mail.test", SMTP_FROM="a@example.com"))
    careless = settings(tmp_path, SMTP_HOST="mail.test", SMTP_USER="atelier", SMTP_SECURITY="none")
    with pytest.raises(SettingsError) as refusal:
        places.check_mail(careless)
    named = [fault.split(" ")[0].removeprefix("ATELIER_BILLING_SMTP_") for fault in refusal.value.faults]
    assert named == ["FROM", "PASSWORD_FILE", "SECURITY"]


def test_a_file_of_secrets_holds_one_a_line_the_first_in_use(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    ring.write_text(f"\n{'n' * 32}\n\n  {'o' * 40}  \n")
    peppers = settings(tmp_path, KEY_PEPPER_FILE=str(ring)).key_peppers
    assert [one.reveal() for one in peppers] == ["n" * 32, "o" * 40]
    assert "n" * 32 not in repr(peppers)


@pytest.mark.parametrize("content", ["short", f"{'a' * 32}\nshort", "\n".join(["a" * 32] * 9), " "])
def test_a_file_of_weak_or_too_many_secrets_is_refused_at_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "ring").write_text(content)
    with pytest.raises(SettingsError, match="ATELIER_BILLING_TOKEN_SECRET_FILE"):
        settings(tmp_path, TOKEN_SECRET_FILE=str(tmp_path / "ring"))
