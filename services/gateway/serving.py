"""The gateway as a process: its parts, in the order in which they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from services.chassis.clock import Clock, SystemClock
from services.chassis.egress_objects import ObjectStore
from services.chassis.process import Process
from services.gateway import app
from services.gateway.access_log import AccessLog
from services.gateway.attempts import Attempts
from services.gateway.auth import Authenticator
from services.gateway.backends import Backends
from services.gateway.client_address import ClientAddresses
from services.gateway.contract import House
from services.gateway.contracts import CONTRACTS
from services.gateway.cors import Cors
from services.gateway.docs_site.site import DocsSite
from services.gateway.edge import Edge
from services.gateway.hints import Hints
from services.gateway.hosts import Hosts
from services.gateway.listener import Listener, bind, url_of
from services.gateway.media import Media, MediaFiles, MediaLinks, SigningKeys
from services.gateway.media_objects import MediaObjects
from services.gateway.price_lists import PriceLists
from services.gateway.rate_limits import RateLimits
from services.gateway.reference_media import ReferenceMedia
from services.gateway.settings import Settings
from services.gateway.webhook_forms import WebhookForms

_STORE_TOTAL_S: Final = 10.0
"""Somebody waits for a picture; after that it is an answer of its own that the store does not answer."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves. url: where it listens, which is not always where customers reach it."""

    url: str
    backends: Backends


async def serve(settings: Settings) -> None:
    """Serves until the process is asked to stop; requests under way are still answered."""
    async with Process("gateway", settings.operations_listen) as process, serving(settings) as gateway:
        # The pool is not asked for: without it only requests with an inline image fail, and each says so.
        process.add_check("billing", gateway.backends.billing.check)
        process.add_check("jobs", gateway.backends.jobs.check)
        process.announce(public=gateway.url)
        await process.until_stopped()


@asynccontextmanager
async def serving(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Gateway]:
    """Serves the public port while entered; leaving drains it, then lets go of the backends."""
    clock = clock or SystemClock()
    keys = SigningKeys(settings.media_signing_keys)
    bound = bind(settings.listen, reuse_port=settings.reuse_port)
    public_url = settings.public_url or url_of(bound)
    hosts = Hosts(CONTRACTS, dict(settings.storefront_hosts))
    client_addresses = ClientAddresses(settings.trusted_proxies)
    access_log = AccessLog() if settings.access_log else None
    addresses = (settings.billing_address, settings.jobs_address, settings.pool_address)
    async with Backends(*addresses) as backends, _media(settings, keys, clock) as files:
        validity_ms, own_urls = int(settings.media_link_hours * 3_600_000), hosts.own_urls(public_url)
        edge = Edge(
            CONTRACTS,
            House(
                backends,
                MediaLinks(keys, public_url, validity_ms, clock, own_urls),
                ReferenceMedia(backends, settings.policy()),
                WebhookForms(backends.put_webhook_form, own_urls),
                PriceLists(backends.price_list, clock),
                Attempts(clock),
                clock,
            ),
            Authenticator(backends.identify, clock),
            RateLimits(),
            cors=Cors(settings.cors_origins),
            hosts=hosts,
            client_addresses=client_addresses,
            access_log=access_log,
            requests_in_flight=settings.requests_in_flight,
            inline_uploads=settings.inline_uploads,
        )
        hints = Hints(backends.take_hint, client_addresses)
        web_app = app.build(CONTRACTS, edge, files, DocsSite(CONTRACTS, public_url, hosts), hints)
        async with Listener(web_app, edge.contract_of, bound):
            yield Gateway(url_of(bound), backends)
    if access_log is not None:
        access_log.flush()


@asynccontextmanager
async def _media(settings: Settings, keys: SigningKeys, clock: Clock) -> AsyncIterator[Media]:
    place = settings.media_place()
    if place is not None:
        async with ObjectStore(place, ca_file=settings.egress_ca_file, total_s=_STORE_TOTAL_S) as objects:
            yield MediaObjects(keys, objects, clock, redirect=settings.media_s3_redirect)
    elif settings.media_folder is not None:
        yield MediaFiles(keys, settings.media_folder, clock)
