"""How a PostgreSQL server dies under its clients: whole, or one connection at a time."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import asyncpg

from tests.postgres import Postgres

_CONNECT_DEADLINE_S = 10.0


def kill_server(server: Postgres) -> int:
    """kill -9 of the postmaster and of every process it has made; how many those were. `server.start()` recovers."""
    postmaster = server.pid
    children = [
        int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    ]
    server.kill9()
    for child in children:
        # A backend that has noticed the postmaster's death is gone already.
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return len(children)


async def end_backends(url: str, share: float) -> int:
    """`pg_terminate_backend` for about this share of all client connections; how many were ended."""
    connection = await asyncpg.connect(url, timeout=_CONNECT_DEADLINE_S)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < $1",
                share,
            )
        )
    finally:
        await connection.close()
