"""Which ports the processes of a house listen on, and what each is told in its environment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from urllib.parse import urlsplit, urlunsplit

from services.chassis.errors import Kind, ServiceError
from services.house.layout import Layout
from services.house.settings import Settings

_LOOPBACK = "127.0.0.1"
# In the order in which they are stopped: whoever calls others goes before those it calls.
_SERVICES = ("gateway", "jobs", "provider_pool", "billing")
_SIMULATOR = "simulator"
_DATABASES = ("billing", "jobs", "provider_pool")
_PREFIXES = {
    "billing": "BILLING",
    "jobs": "JOBS",
    "provider_pool": "POOL",
    "gateway": "GATEWAY",
    _SIMULATOR: "SIMULATOR",
}
# A house for a look around shows in seconds what takes the real providers minutes.
_SIMULATED_PACE = "10"


@dataclass(frozen=True)
class Ports:
    """The public port, and the loopback ports between the processes."""

    public: int
    grpc: Mapping[str, int]
    operations: Mapping[str, int]
    simulator: int


def services_of(settings: Settings) -> tuple[str, ...]:
    """What a house consists of, in the order in which it is stopped."""
    return (*_SERVICES, _SIMULATOR) if settings.is_simulated else _SERVICES


def choose_ports(public: int) -> Ports:
    """Finds free ports. Raises ServiceError with one sentence where the public one is taken.

    They are known before anything starts, so that all processes can start at once, and stay the
    same when one is started again.
    """
    with ExitStack() as held:
        free = (held.enter_context(_bound(port)).getsockname()[1] for port in repeat(0))
        grpc = dict(zip(_DATABASES, free, strict=False))
        operations = dict(zip(_PREFIXES, free, strict=False))
        simulator = next(free)
        chosen = held.enter_context(_bound(public)).getsockname()[1]
    return Ports(chosen, grpc, operations, simulator)


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_LOOPBACK, port))
    except OSError as fault:
        listener.close()
        sentence = f"port {port} cannot be used ({fault.strerror}); set ATELIER_PORT to another one, or to 0"
        raise ServiceError(Kind.FAILED_PRECONDITION, "PORT_TAKEN", sentence) from None
    return listener


def database_url(settings: Settings, layout: Layout, service: str) -> str:
    """SQLite in the house's folder, or the service's own database on the given server."""
    if not settings.database_url:
        return f"sqlite:///{layout.database(service)}"
    parts = urlsplit(settings.database_url)
    name = parts.path.strip("/") or "atelier"
    return urlunsplit(parts._replace(path=f"/{name}_{service}"))


def mails_of(environ: Mapping[str, str]) -> str:
    """How billing with these variables sends mails to users."""
    server = environ.get("ATELIER_BILLING_SMTP_HOST")
    return f"go out over {server}" if server else f"in {environ['ATELIER_BILLING_OUTBOX']}"


def environment(service: str, settings: Settings, layout: Layout, ports: Ports) -> dict[str, str]:
    """The variables of one service; its owner's own settings of the same name win over them."""
    prefix = f"ATELIER_{_PREFIXES[service]}_"
    chosen = {
        "LOG_LEVEL": settings.log_level,
        "OPERATIONS_LISTEN": f"{_LOOPBACK}:{ports.operations[service]}",
    }
    if service in _DATABASES:
        chosen["DATABASE_URL"] = database_url(settings, layout, service)
        chosen["GRPC_LISTEN"] = f"{_LOOPBACK}:{ports.grpc[service]}"
    if service == _SIMULATOR:
        chosen |= {
            "LISTEN": f"{_LOOPBACK}:{ports.simulator}",
            "STATE_FILE": str(layout.simulator_state),
            "PACE": _SIMULATED_PACE,
        }
    if service in {"jobs", "gateway"}:
        chosen["BILLING_ADDRESS"] = f"{_LOOPBACK}:{ports.grpc['billing']}"
    if service == "provider_pool" and settings.is_simulated:
        # Real providers cannot reach this machine; simulated ones can.
        chosen["PUBLIC_URL"] = f"http://{_LOOPBACK}:{ports.public}"
    chosen |= _own_settings(service, layout, ports)
    return {prefix + name: value for name, value in chosen.items()}


def _own_settings(service: str, layout: Layout, ports: Ports) -> dict[str, str]:
    if service == "billing":
        return {
            "KEY_PEPPER_FILE": str(layout.key("api_key_pepper")),
            "TOKEN_SECRET_FILE": str(layout.key("access_tokens")),
            "OUTBOX": str(layout.outbox),
        }
    if service == "provider_pool":
        return {
            "VAULT_KEY_RING_FILE": str(layout.key("vault_ring")),
            "MEDIA_FOLDER": str(layout.media),
            "REFERENCES_FOLDER": str(layout.references),
            "RESULTS_FOLDER": str(layout.results),
            "SANDBOX_FOLDER": str(layout.sandbox),
        }
    if service == "jobs":
        return {
            "POOL_ADDRESS": f"{_LOOPBACK}:{ports.grpc['provider_pool']}",
            "PUBLIC_URL": f"http://{_LOOPBACK}:{ports.public}",
            "SEALING_KEYS_FILE": str(layout.key("webhook_ring")),
            "MEDIA_SIGNING_KEY_FILE": str(layout.key("media_signing")),
        }
    if service == "gateway":
        return {
            "LISTEN": f"{_LOOPBACK}:{ports.public}",
            "PUBLIC_URL": f"http://{_LOOPBACK}:{ports.public}",
            "JOBS_ADDRESS": f"{_LOOPBACK}:{ports.grpc['jobs']}",
            "POOL_ADDRESS": f"{_LOOPBACK}:{ports.grpc['provider_pool']}",
            "MEDIA_FOLDER": str(layout.media),
            "MEDIA_SIGNING_KEY_FILE": str(layout.key("media_signing")),
        }
    return {}
