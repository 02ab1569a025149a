"""Everything that the simulator is told, read from the environment once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from services.chassis.settings import decimal_number, host_and_port, log_level, setting, whole_number


def _loopback(text: str) -> str:
    address = host_and_port(text)
    host = address.rpartition(":")[0].strip("[]")
    if host != "localhost" and not (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        raise ValueError(f"must be a loopback address, not {host}: whoever reaches the simulator rules it")
    return address


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the simulator needs."""

    listen: str = setting(
        "ATELIER_SIMULATOR_LISTEN",
        default="127.0.0.1:0",
        parse=_loopback,
        help="where the simulated providers are served, on a loopback address; port 0 takes any free one",
    )
    operations_listen: str = setting(
        "ATELIER_SIMULATOR_OPERATIONS_LISTEN",
        default="127.0.0.1:0",
        parse=_loopback,
        help="where health, readiness and metrics are served",
    )
    log_level: str = setting(
        "ATELIER_SIMULATOR_LOG_LEVEL",
        default="info",
        parse=log_level,
        help="the least level that is logged: debug, info, warning or error",
    )
    seed: int = setting(
        "ATELIER_SIMULATOR_SEED",
        default=1,
        parse=whole_number(0, 2**31),
        help="what every chance is drawn from; the same number and the same calls give the same faults",
    )
    pace: float = setting(
        "ATELIER_SIMULATOR_PACE",
        default=1.0,
        parse=decimal_number(0.01, 10_000),
        help="how many times faster than the real providers work is done; what expires keeps its time",
    )
    state_file: Path | None = setting(
        "ATELIER_SIMULATOR_STATE_FILE",
        default=None,
        parse=Path,
        help="where accounts, faults and tasks are kept from one run to the next; nowhere by default",
    )
