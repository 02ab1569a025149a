"""Where each customer is told, and the secrets that prove to it who tells: sealed for their own row."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, select, update

from services.chassis.sealing import SealingKeys, sealing_key_id
from services.chassis.set_statements import insert_rows, locked, member_of, update_rows
from services.chassis.settings import Secret
from services.jobs.webhooks.signatures import new_secret
from services.jobs.webhooks.tables import ENDPOINTS

_PURPOSE: Final = b"atelier webhook secret\x00"
_COLUMNS = tuple(ENDPOINTS.columns)
# Each adds a signature to every webhook.
_KEPT_LIMIT: Final = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The row of one customer. secret: sealed, or empty; previous_secret: those before it, the newest first, with blanks
    between them.
    """

    customer_id: str
    url: str = ""
    secret: str = ""
    secret_made_at_ms: int = 0
    previous_secret: str = ""
    overlap_until_ms: int = 0


def load(connection: Connection, customers: Iterable[str]) -> dict[str, Endpoint]:
    """The rows of those of these customers that have one."""
    found = connection.execute(select(*_COLUMNS).where(member_of(ENDPOINTS.c.customer_id, customers)))
    return {row[0]: Endpoint(*row) for row in found}


def has_secrets(connection: Connection) -> bool:
    """Whether anything is sealed here."""
    return (
        connection.scalar(select(ENDPOINTS.c.customer_id).where(ENDPOINTS.c.secret != "").limit(1))
        is not None
    )


def set_url(connection: Connection, customer_id: str, url: str) -> Endpoint:
    """Tells this customer there from now on."""
    return _changed(connection, _locked(connection, customer_id), url=url)


def rotate(
    connection: Connection, keys: SealingKeys, customer_id: str, overlap_ms: int, now_ms: int
) -> tuple[Endpoint, Secret]:
    """A new secret; the one before it signs as well for so long, and so do those that it overlaps with at this moment.

    For whoever rotates again because the answer was lost, the receiver's own secret is one of the latter.
    """
    before = _locked(connection, customer_id)
    made = new_secret()
    kept = [before.secret, *_overlapping(before, now_ms)] if before.secret and overlap_ms > 0 else []
    endpoint = _changed(
        connection,
        before,
        secret=sealed(keys, customer_id, made),
        secret_made_at_ms=now_ms,
        previous_secret=" ".join(kept[:_KEPT_LIMIT]),
        overlap_until_ms=max(before.overlap_until_ms, now_ms + overlap_ms) if kept else 0,
    )
    return endpoint, made


def make_missing(
    connection: Connection, keys: SealingKeys, customers: Sequence[str], now_ms: int
) -> dict[str, Endpoint]:
    """The rows of these customers, each with a secret."""
    found: dict[str, Endpoint] = {}
    for customer_id in sorted(customers):
        endpoint = _locked(connection, customer_id)
        if not endpoint.secret:
            secret = sealed(keys, customer_id, new_secret())
            endpoint = _changed(connection, endpoint, secret=secret, secret_made_at_ms=now_ms)
        found[customer_id] = endpoint
    return found


def active(keys: SealingKeys, endpoint: Endpoint, now_ms: int) -> list[Secret]:
    """What signs now, the newest first. Raises SealBroken."""
    kept = [endpoint.secret, *_overlapping(endpoint, now_ms)]
    return [_opened(keys, endpoint.customer_id, one) for one in kept]


def _overlapping(endpoint: Endpoint, now_ms: int) -> list[str]:
    return endpoint.previous_secret.split() if now_ms < endpoint.overlap_until_ms else []


def sealed(keys: SealingKeys, customer_id: str, secret: Secret) -> str:
    """A secret as it is stored: it opens for this customer only."""
    return base64.b64encode(keys.seal_value(_bound_to(customer_id), secret.reveal().encode())).decode()


def rewrapped(keys: SealingKeys, customer_id: str, text: str) -> str:
    """A secret as it is stored, under the key that seals now; as it is, where it is that already. Raises SealBroken."""
    before = base64.b64decode(text)
    # Also what needs no move is opened, so that a broken seal is told before it is missed.
    after = keys.rewrap_value(_bound_to(customer_id), before)
    return text if sealing_key_id(before) == keys.sealing_key_id else base64.b64encode(after).decode()


def load_secrets(
    connection: Connection, after_customer_id: str, limit: int
) -> list[tuple[str, tuple[str, str]]]:
    """What is sealed, in the order of the customers: the secret, and those before it."""
    statement = (
        select(ENDPOINTS.c.customer_id, ENDPOINTS.c.secret, ENDPOINTS.c.previous_secret)
        .where(ENDPOINTS.c.customer_id > after_customer_id, ENDPOINTS.c.secret != "")
        .order_by(ENDPOINTS.c.customer_id)
        .limit(limit)
    )
    return [(row[0], (row[1], row[2])) for row in connection.execute(statement)]


def replace_secrets(
    connection: Connection, customer_id: str, before: tuple[str, str], after: tuple[str, str]
) -> bool:
    """Write what is sealed where `before` still stands; False if somebody has changed it."""
    own = ENDPOINTS.c.customer_id == customer_id
    stands = (ENDPOINTS.c.secret == before[0], ENDPOINTS.c.previous_secret == before[1])
    statement = update(ENDPOINTS).where(own, *stands).values(secret=after[0], previous_secret=after[1])
    return connection.execute(statement).rowcount == 1


def _opened(keys: SealingKeys, customer_id: str, text: str) -> Secret:
    return Secret(keys.open_value(_bound_to(customer_id), base64.b64decode(text)).decode())


def _bound_to(customer_id: str) -> bytes:
    return _PURPOSE + customer_id.encode()


def _locked(connection: Connection, customer_id: str) -> Endpoint:
    """The customer's row, which nobody else changes until this transaction ends; made where there was none."""
    insert_rows(connection, ENDPOINTS, [asdict(Endpoint(customer_id))], ignore_conflicts=True)
    query = select(*_COLUMNS).where(ENDPOINTS.c.customer_id == customer_id)
    return Endpoint(*connection.execute(locked(query, ENDPOINTS.c.customer_id)).one())


def _changed(connection: Connection, before: Endpoint, **columns: str | int) -> Endpoint:
    row = {"customer_id": before.customer_id} | columns
    update_rows(connection, ENDPOINTS, key=("customer_id",), rows=[row], returning_keys=False)
    return Endpoint(**asdict(before) | columns)
