"""Proving API keys against the database, many at once, and remembering when they were last used."""

from __future__ import annotations

import asyncio
import contextvars

from services.billing import errors, keys
from services.billing.keys import Key, KeyOwner
from services.billing.store import keys as key_rows
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.settings import Secret

# Keys read by one statement; more than that many distinct keys in one read's time wait for the next.
LOOKUP_LIMIT = 512
# Uses not yet written; beyond it the newest are forgotten, which costs accuracy and nothing else.
USES_LIMIT = 100_000


class Authenticator:
    """Says whose a key is. It keeps no answer, so a revoked key is refused from the next call on."""

    def __init__(self, database: Database, prefixes: frozenset[str], pepper: Secret, clock: Clock) -> None:
        self._lookups = _Lookups(database)
        self._database = database
        self._prefixes = prefixes
        self._pepper = pepper
        self._clock = clock
        self._used_at_ms: dict[str, int] = {}

    async def owner(self, api_key: str) -> KeyOwner:
        """Raises ServiceError INVALID_API_KEY, the same for every cause."""
        if not keys.is_well_formed(api_key, self._prefixes):
            raise errors.invalid_api_key()
        digest = keys.digest(api_key, self._pepper)
        owner = await self._lookups.owner(digest)
        now_ms = self._clock.now_ms()
        if owner is None or not keys.may_be_used(owner, digest, now_ms):
            raise errors.invalid_api_key()
        self._note_use(owner.key, now_ms)
        return owner

    async def write_uses(self) -> None:
        """Write the uses noted since the last time."""
        used_at_ms, self._used_at_ms = self._used_at_ms, {}
        if used_at_ms:
            await self._database.write(lambda connection: key_rows.record_uses(connection, used_at_ms))

    def _note_use(self, key: Key, now_ms: int) -> None:
        if keys.use_is_worth_recording(key, now_ms) and len(self._used_at_ms) < USES_LIMIT:
            self._used_at_ms[key.key_id] = now_ms


class _Lookups:
    """Reads by digest; those that arrive while one read runs share the next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, asyncio.Future[KeyOwner | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def owner(self, digest: str) -> KeyOwner | None:
        answer = self._waiting.get(digest)
        if answer is None:
            answer = self._waiting[digest] = asyncio.get_running_loop().create_future()
        if self._reader is None:
            # An empty context: the read belongs to no one request.
            self._reader = asyncio.create_task(self._read(), context=contextvars.Context())
        # Shielded: the answer is shared, and one caller's leaving must not take it from the others.
        return await asyncio.shield(answer)

    async def _read(self) -> None:
        try:
            while self._waiting:
                digests = list(self._waiting)[:LOOKUP_LIMIT]
                await self._answer({digest: self._waiting.pop(digest) for digest in digests})
        finally:
            self._reader = None

    async def _answer(self, answers: dict[str, asyncio.Future[KeyOwner | None]]) -> None:
        try:
            owners = await self._database.read(lambda connection: key_rows.owners(connection, list(answers)))
        except Exception as error:
            for answer in answers.values():
                answer.set_exception(error)
                # Whoever asked may be gone; an exception nobody fetches would be logged as a bug.
                answer.exception()
            return
        for digest, answer in answers.items():
            answer.set_result(owners.get(digest))
