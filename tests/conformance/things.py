from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    select,
    text,
)

from services.chassis.database import insert_rows

METADATA = MetaData()
THINGS = Table(
    "things",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("epoch", Integer, nullable=False, server_default=text("7")),
    Column("amount_millis", BigInteger),
    Column("open", Boolean),
    Column("order", String(3)),
    Column("secret", LargeBinary),
)

LARGEST = 2**63 - 1


def thing(identity: str, **values: Any) -> dict[str, Any]:
    empty = {"epoch": 1, "amount_millis": None, "open": None, "order": None, "secret": None}
    return {"id": identity, **empty, **values}


def all_things(connection: Connection) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(select(THINGS).order_by(THINGS.c.id))]


def inserting(*rows: dict[str, Any], ignore_conflicts: bool = False) -> Any:
    return lambda connection: insert_rows(connection, THINGS, rows, ignore_conflicts=ignore_conflicts)
