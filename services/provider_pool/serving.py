"""The running service: its parts, built from the settings in the order in which they depend on each other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database, migrate
from services.chassis.egress import Egress
from services.chassis.egress_objects import ObjectStore
from services.chassis.process import Process
from services.chassis.rounds import Round, rounds
from services.chassis.rpc_server import RpcServer
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as rpc
from services.provider_pool import providers, upkeep
from services.provider_pool.accounts.checking import Checks
from services.provider_pool.accounts.headroom import Headroom
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.adapters.result_files import ResultFiles
from services.provider_pool.adapters.sandbox.render_farm import default_workers
from services.provider_pool.attempts.cancelling import Cancelling
from services.provider_pool.attempts.closing import Closing
from services.provider_pool.attempts.collection import Collection
from services.provider_pool.attempts.hint_addresses import HintAddresses
from services.provider_pool.attempts.hints import Hints
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.loose_ends import LooseEnds
from services.provider_pool.attempts.overdue import Overdue
from services.provider_pool.attempts.patience import Patience
from services.provider_pool.attempts.polling import Polling
from services.provider_pool.attempts.resolution import Resolution
from services.provider_pool.attempts.submission import Submissions
from services.provider_pool.attempts.uploads import Uploads, sweep_uploads
from services.provider_pool.catalog import Catalog
from services.provider_pool.media.object_media import ObjectMedia
from services.provider_pool.media.output_store import OutputStore
from services.provider_pool.media.store import MediaStore
from services.provider_pool.providers import lending, results_folder_of
from services.provider_pool.references.fetching import Fetching
from services.provider_pool.references.inspector import Inspector
from services.provider_pool.references.intake import Inspectors, Intake
from services.provider_pool.references.preparation import Preparation
from services.provider_pool.references.recordings.inspector import RecordingInspector
from services.provider_pool.references.recordings.inspector import default_workers as recording_workers
from services.provider_pool.references.staging import Staging
from services.provider_pool.references.store import ReferenceStore
from services.provider_pool.rpc import SERVICE_NAME, Parts, ProviderPoolService
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.leasing import Leasing
from services.provider_pool.settings import MIGRATIONS, Settings
from services.provider_pool.store import accounts as account_rows


async def serve(settings: Settings) -> None:
    """Serve until the process is asked to stop. Raises SettingsError or ServiceError if it cannot start."""
    clock = SystemClock()
    async with (
        Process("provider_pool", settings.operations_listen, drain_s=settings.drain_s) as process,
        AsyncExitStack() as stack,
    ):
        url = settings.database_url.reveal()
        await migrate(url, MIGRATIONS)
        database = await Database.open(url, application_name="atelier-provider-pool")
        stack.push_async_callback(database.close)
        ring = await _key_ring(settings, database)
        store = await _media(settings, stack)
        results = ResultFiles(results_folder_of(settings), limit_bytes=settings.media_limit_bytes)
        stack.callback(results.close)
        await results.check()
        catalog = await _catalog(settings, results, stack)
        references = await _references(settings, stack)
        parts = _parts(settings, database, ring, catalog, store, references, clock, stack)
        await parts.attempts.mark_orphans(parts.submissions.answer_by_ms)
        await parts.leasing.recount()
        await parts.accounts.recognise()
        work = _rounds(settings, database, parts, catalog, store) | _reference_rounds(references)
        work["sweep_results"] = results.sweeping
        await stack.enter_async_context(rounds(clock, work))
        server = RpcServer(
            settings.grpc_listen,
            [partial(rpc.add_ProviderPoolServiceServicer_to_server, ProviderPoolService(parts))],
            [SERVICE_NAME],
        )
        await stack.enter_async_context(server)
        process.add_check("database", partial(_reach, database))
        process.add_check("media", store.check)
        process.add_check("references", references.store.check)
        process.add_check("results", results.check)
        process.announce(grpc=server.address)
        await process.until_stopped()
        await _drain(process, server, parts, alone=database.sole_owner)


async def _drain(process: Process, server: RpcServer, parts: Parts, *, alone: bool) -> None:
    """Take nothing new, and end what is being sent: of a synchronous provider, its answer is what was paid for."""
    parts.leasing.take_no_more()
    parts.submissions.take_no_more()
    if not alone:
        # Others serve, and whoever calls goes to them now. Nobody can do the work of one that is alone: running tasks
        # have deadlines, so it goes on with everything else.
        await server.leave()
    await process.finish(parts.submissions.drained())
    # Before the calls end that wait for them, so that these are answered.
    await parts.submissions.close()
    if process.hurried:
        await server.drain(0)


async def _reach(database: Database) -> None:
    await database.read(account_rows.has_accounts)


async def _key_ring(settings: Settings, database: Database) -> KeyRing:
    # Only a pool without accounts may make itself a ring: with accounts, a missing one is a mistake to be told about.
    return settings.key_ring(make=not await database.read(account_rows.has_accounts))


async def _media(settings: Settings, stack: AsyncExitStack) -> OutputStore:
    place, limit_bytes = settings.media_place(), settings.media_limit_bytes
    store: OutputStore
    if place is None:
        store = MediaStore(settings.media_folder, limit_bytes=limit_bytes)
    else:
        objects = await stack.enter_async_context(ObjectStore(place, ca_file=settings.egress_ca_file))
        store = ObjectMedia(objects, settings.media_folder, limit_bytes=limit_bytes)
    stack.callback(store.close)
    await store.check()
    return store


async def _catalog(settings: Settings, results: ResultFiles, stack: AsyncExitStack) -> Catalog:
    adapters = providers.adapters_of(settings)
    for adapter in adapters:
        stack.push_async_callback(adapter.close)
    return Catalog(
        adapters,
        unknown_window_s=settings.unknown_window_s,
        resubmit_once=settings.resubmit_once,
        price_band=settings.price_band,
        lends=await lending(settings, adapters, results, stack),
    )


@dataclass(frozen=True, slots=True)
class _References:
    store: ReferenceStore
    intake: Intake
    fetching: Fetching


async def _references(settings: Settings, stack: AsyncExitStack) -> _References:
    store = ReferenceStore(settings.references_folder)
    stack.callback(store.close)
    await store.check()
    egress = await stack.enter_async_context(Egress(settings.policy(), ca_file=settings.egress_ca_file))
    # It starts its processes with the first image, and ends them when no more come.
    image_workers = settings.reference_workers or default_workers()
    images = Inspector(workers=image_workers)
    recordings = RecordingInspector(workers=recording_workers(image_workers))
    for inspector in (images, recordings):
        stack.push_async_callback(inspector.close)
    intake = Intake(store, Inspectors(images, recordings))
    return _References(store, intake, Fetching(egress, intake, store))


def _parts(
    settings: Settings,
    database: Database,
    ring: KeyRing,
    catalog: Catalog,
    store: OutputStore,
    references: _References,
    clock: Clock,
    stack: AsyncExitStack,
) -> Parts:
    addresses = HintAddresses(ring, settings.public_url)
    capacity = Capacity(database, catalog, clock)
    accounts = Accounts(database, ring, catalog, clock, capacity)
    attempts = AttemptLog(database, clock, capacity)
    leasing = Leasing(database, catalog, settings.selection_policy, clock, capacity)
    staging = Staging(references.intake, references.store, catalog)
    preparation = Preparation(references.store, references.fetching, leasing, catalog)
    uploads = Uploads(database, accounts, catalog, clock)
    submissions = Submissions(
        attempts,
        accounts,
        catalog,
        preparation.files,
        clock,
        uploads=uploads,
        callback_urls=addresses.callback_url,
    )
    cancelling = Cancelling(accounts, catalog, clock)
    patience = Patience(catalog.longest_s, settings.task_ceiling_s)
    overdue = Overdue(database, patience, cancelling, clock)
    polling = Polling(attempts, accounts, catalog, overdue, clock)
    resolution = Resolution(attempts, submissions, accounts, catalog, preparation.files, clock)
    hints = Hints(addresses, database, attempts, accounts, catalog, polling, clock)
    stack.callback(hints.announcements.close)
    collection = Collection(attempts, accounts, catalog, store, clock)
    # Closed in reverse: what records comes after all that has something to record.
    for part in (
        attempts,
        leasing,
        polling,
        resolution,
        collection,
        preparation,
        staging,
        uploads,
        submissions,
    ):
        stack.push_async_callback(part.close)
    return Parts(
        accounts,
        Checks(accounts, catalog, leasing.ceilings, clock),
        Headroom(database, catalog, clock),
        attempts,
        capacity,
        leasing,
        submissions,
        polling,
        resolution,
        collection,
        staging,
        preparation,
        Closing(database, attempts, submissions, cancelling, catalog, clock),
        catalog,
        overdue,
        hints,
        LooseEnds(database, attempts, resolution, polling, overdue, catalog, clock),
        clock,
        settings.media_retention_s,
    )


def _reference_rounds(references: _References) -> dict[str, Round]:
    return {"sweep_references": partial(upkeep.sweep_references, references.store)}


def _rounds(
    settings: Settings, database: Database, parts: Parts, catalog: Catalog, store: OutputStore
) -> dict[str, Round]:
    accounts, clock = parts.accounts, parts.clock
    answer_by_ms = parts.submissions.answer_by_ms
    return {
        "beat": parts.attempts.heartbeat.beat,
        "sweep_leases": partial(upkeep.sweep_leases, parts.leasing),
        "find_orphans": partial(upkeep.find_orphans, parts.attempts, answer_by_ms),
        "check_accounts": parts.checks.run,
        "show_headroom": parts.headroom.show,
        "learn_patience": parts.overdue.learn,
        "resolve_doubts": parts.loose_ends.resolve_doubts,
        "end_tasks": parts.loose_ends.end_tasks,
        "forget_attempts": partial(upkeep.forget_attempts, database, clock, settings.attempt_retention_s),
        "sweep_media": partial(upkeep.sweep_media, store, catalog, settings.media_retention_s),
        "sweep_uploads": partial(sweep_uploads, database, clock),
        "show_gauges": partial(upkeep.show_gauges, database, accounts, catalog, clock),
        "tell_capacity": parts.capacity.run,
    }
