"""Brings references to the account that was chosen, and remembers which it has: one upload for an account and a file.

It is done before a submission is recorded, so that whatever goes wrong here has cost nothing and left no doubt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.provider_pool import meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Adapter,
    AuthFailed,
    Feature,
    Generation,
    ModelSpec,
    Next,
    Prepared,
    ProviderError,
    ReferenceFile,
    RemoteFile,
    Scope,
    TransientFailure,
)
from services.provider_pool.attempts import codec
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.leases import LeaseState
from services.provider_pool.store import leases as lease_rows
from services.provider_pool.store import uploads as store
from services.provider_pool.store.uploads import Name

log = logging.getLogger(__name__)

MARGIN_S: Final = 600
"""How much longer than until its submission a provider must keep a reference: it is read when the task begins."""

SWEEP_S: Final = 3600.0
# A batch keeps the one writer of SQLite for some milliseconds; between two of them others have their turn.
SWEEP_LIMIT: Final = 500
SWEEP_PAUSE_S: Final = 0.2

_AT_ONCE: Final = 3
"""Uploads of one request; the largest has fifteen references, and others have requests too."""

_YEAR_S: Final = 366 * 86_400


class UploadForgotten(ProviderError):
    """The provider does not know any more what was uploaded to it: refused, free of charge, and soon put right."""

    scope, next, code = Scope.JOB, Next.RETRY, "upload_forgotten"


@dataclass(frozen=True, slots=True)
class Brought:
    """What the account has of a generation's references, one for each; none where the adapter does not upload.

    `error`: why one could not be brought, `asked`: by the provider's own word.
    `were_there`: whether one had been uploaded for an earlier submission.
    """

    files: tuple[RemoteFile, ...] = ()
    error: ProviderError | None = None
    asked: bool = False
    were_there: bool = False


NOTHING: Final = Brought()


@dataclass(frozen=True, slots=True)
class _Errand:
    account: AccountAccess
    adapter: Adapter
    spec: ModelSpec


class Uploads:
    """Uploads references. Simultaneous uploads of one file to one account are one, which goes on when its callers leave."""

    def __init__(self, database: Database, accounts: Accounts, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._accounts = accounts
        self._catalog = catalog
        self._clock = clock
        self._flights: dict[tuple[str, Name], asyncio.Task[RemoteFile]] = {}

    async def bring(
        self, attempt_id: str, generation: Generation, files: Sequence[ReferenceFile | None]
    ) -> Brought:
        """Bring all references to the account that the attempt has leased. Raises UNAVAILABLE (the database is away).

        Where that is for others to refuse, a lease that has ended, a file that is gone, nothing is brought.
        """
        there = [file for file in files if file is not None]
        if not there or len(there) < len(files):
            return NOTHING
        held = await self._database.read(lambda connection: lease_rows.load_held(connection, attempt_id))
        if held is None or held[0].state is not LeaseState.OPEN or held[1] not in self._catalog.adapters:
            return NOTHING
        lease, provider = held
        adapter, spec = self._catalog.adapter(provider), self._catalog.spec(provider, generation.model)
        if spec is None or Feature.UPLOAD not in adapter.features:
            return NOTHING
        known = await self._known(lease.account_id, there)
        try:
            # Before anything is sent: what the adapter cannot say needs no pictures.
            adapter.prepare(codec.named_by_content(generation, there), spec, there)
            account = await self._access(lease.account_id)
        except ProviderError as error:
            return Brought(error=error)
        try:
            found = await self._brought(_Errand(account, adapter, spec), there, known)
        except ProviderError as error:
            return Brought(error=error, asked=True)
        return Brought(found, were_there=bool(known))

    async def recalled(self, account_id: str, prepared: Prepared) -> Prepared:
        """The same with what is known to have been uploaded for it; without, where that is not all of it."""
        if not prepared.references:
            return prepared
        known = await self._known(account_id, prepared.references)
        found = tuple(known[name] for file in prepared.references if (name := name_of(file)) in known)
        return replace(prepared, uploads=found) if len(found) == len(prepared.references) else prepared

    async def forget(self, account_id: str, files: Iterable[ReferenceFile]) -> None:
        """The account does not have these (any more). Raises UNAVAILABLE."""
        names = [name_of(file) for file in files]
        await crash_points.committed(
            self._database.write,
            "uploads_forgotten",
            lambda connection: store.delete_uploads(connection, account_id, names),
        )

    async def close(self) -> None:
        """Stop; what was not brought is brought when it is asked for again."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _known(self, account_id: str, files: Sequence[ReferenceFile]) -> Mapping[Name, RemoteFile]:
        names, now_ms = [name_of(file) for file in files], self._clock.now_ms()
        return await self._database.read(
            lambda connection: store.load_uploads(connection, account_id, names, now_ms)
        )

    async def _access(self, account_id: str) -> AccountAccess:
        try:
            return await self._accounts.access(account_id)
        except SealBroken as error:
            raise AuthFailed(str(error)) from error
        except ServiceError as error:
            raise TransientFailure("the account could not be read") from error

    async def _brought(
        self, errand: _Errand, files: Sequence[ReferenceFile], known: Mapping[Name, RemoteFile]
    ) -> tuple[RemoteFile, ...]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(file: ReferenceFile) -> RemoteFile:
            there = known.get(name_of(file))
            if there is not None:
                meters.UPLOADS.labels(errand.account.provider, "there").inc()
                return there
            async with turns:
                return await asyncio.shield(self._flight(errand, file))

        work = [asyncio.create_task(one(file)) for file in files]
        try:
            for ended in asyncio.as_completed(work):
                await ended
            return tuple(one.result() for one in work)
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    def _flight(self, errand: _Errand, file: ReferenceFile) -> asyncio.Task[RemoteFile]:
        key = (errand.account.account_id, name_of(file))
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._upload(errand, file), name="upload of a reference")
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: tuple[str, Name], flight: asyncio.Task[RemoteFile]) -> None:
        del self._flights[key]
        # All callers may be gone, and nobody else would look at the error.
        if not flight.cancelled():
            flight.exception()

    async def _upload(self, errand: _Errand, file: ReferenceFile) -> RemoteFile:
        provider, started_s = errand.account.provider, time.perf_counter()
        outcome = "failed"
        try:
            told = await self._asked(errand, file)
            outcome = "uploaded"
        finally:
            meters.UPLOADS.labels(provider, outcome).inc()
            meters.UPLOAD_SECONDS.labels(provider).observe(time.perf_counter() - started_s)
        kept = replace(told, expires_at_ms=self._usable_until_ms(provider, told))
        try:
            await crash_points.committed(
                self._database.write,
                "upload",
                lambda connection: store.save_upload(
                    connection, errand.account.account_id, name_of(file), kept
                ),
            )
        except ServiceError as error:
            # It is there all the same; somebody else will bring it once more.
            log.warning("upload.not_noted", extra={"provider": provider, "cause": error.reason})
        return kept

    async def _asked(self, errand: _Errand, file: ReferenceFile) -> RemoteFile:
        account, provider = errand.account, errand.account.provider
        failure: ProviderError
        try:
            async with asyncio.timeout(self._catalog.terms(provider).upload_timeout_s):
                crash_points.reached("provider", "upload", "before", subject=file.sha256)
                context = self._catalog.context(account, self._clock)
                told = await errand.adapter.upload(context, account, errand.spec, file)
                crash_points.reached("provider", "upload", "after", subject=file.sha256)
                return told
        except TimeoutError:
            failure = TransientFailure("a reference was not taken in within the deadline")
        except ProviderError as error:
            if error.next is not Next.RECONCILE:
                raise
            # Uploads cost nothing: there is no doubt that would have to be cleared up.
            failure = TransientFailure(f"a reference was perhaps not taken in: {error}")
        except Exception:
            log.exception("upload.adapter_failed", extra={"provider": provider})
            failure = TransientFailure("the adapter failed at a reference")
        raise failure

    def _usable_until_ms(self, provider: str, file: RemoteFile) -> int:
        now_ms = self._clock.now_ms()
        lifetime_s = self._catalog.terms(provider).upload_lifetime_s or _YEAR_S
        ends_ms = file.expires_at_ms or now_ms + lifetime_s * 1000
        # Of what is kept for minutes only, a half is better than nothing.
        return ends_ms - min(MARGIN_S * 1000, max(0, ends_ms - now_ms) // 2)


async def sweep_uploads(database: Database, clock: Clock) -> float:
    """Forget what no account has any more; returns how long to wait, in seconds."""
    now_ms = clock.now_ms()
    forgotten = await database.write(lambda connection: store.delete_expired(connection, now_ms, SWEEP_LIMIT))
    return SWEEP_PAUSE_S if forgotten == SWEEP_LIMIT else SWEEP_S


def name_of(file: ReferenceFile) -> Name:
    """What an upload is known by: providers take pictures, films and sounds in by different doors."""
    return file.sha256, file.role.medium
