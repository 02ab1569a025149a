"""Settings: one frozen class a process, read from the environment once, refused as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

S = TypeVar("S")

_MISSING: Any = object()


class SettingsError(Exception):
    """Everything that is wrong with the environment, one line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("the settings are not usable:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = faults


class Secret:
    """A value that never prints itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "[redacted]"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def setting(
    name: str,
    *,
    default: Any = _MISSING,
    help: str,
    parse: Callable[[str], Any] = str,
) -> Any:
    """Declares a field of a settings class: its variable, its meaning, and how to read it.

    `parse` raises ValueError with a sentence that completes "<name> ".
    """
    metadata = {"name": name, "help": help, "parse": parse}
    if default is _MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """Builds `cls` from the environment. Raises SettingsError that lists every fault at once."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every settings class is a dataclass
        name = field.metadata["name"]
        text = environ.get(name, "").strip()
        if text:
            try:
                values[field.name] = field.metadata["parse"](text)
            except ValueError as fault:
                faults.append(f"{name} {fault}")
        elif field.default is dataclasses.MISSING:
            faults.append(f"{name} is missing: {field.metadata['help']}")
    if faults:
        raise SettingsError(faults)
    return cls(**values)


def describe(cls: type[Any]) -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, for the documentation."""
    rows = []
    for field in dataclasses.fields(cls):
        default = "required" if field.default is dataclasses.MISSING else _described(field.default)
        rows.append((field.metadata["name"], default, field.metadata["help"]))
    return rows


def _described(default: Any) -> str:
    # What stands in the source is nobody's secret.
    return default.reveal() if isinstance(default, Secret) else str(default)


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """A parser for an integer within bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"is not a whole number: {text!r}") from None
        if not minimum <= number <= maximum:
            raise ValueError(f"must be {minimum} to {maximum}, not {number}")
        return number

    return parse


def decimal_number(minimum: float, maximum: float) -> Callable[[str], float]:
    """A parser for a number within bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"is not a number: {text!r}") from None
        if not minimum <= number <= maximum:
            raise ValueError(f"must be {minimum:g} to {maximum:g}, not {text}")
        return number

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser for one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {text!r}")
        return text

    return parse


# What `logs.configure` takes.
log_level = one_of("debug", "info", "warning", "error")


def switch(text: str) -> bool:
    """A parser for yes and no."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"must be yes or no, not {text!r}")


def host_and_port(text: str) -> str:
    """A parser for `host:port`; port 0 is any free one."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"must be host:port, not {text!r}")
    return text


def web_origin(text: str) -> str:
    """A parser for `https://host[:port][/path]`, without a slash at the end."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"must be an address such as https://api.example.com, not {text!r}")
    return text.rstrip("/")


def file_secret(text: str) -> Secret:
    """A parser for a path to a file whose content, trimmed, is the secret."""
    try:
        content = Path(text).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"names a file that cannot be read: {text} ({fault.__class__.__name__})") from None
    if not content:
        raise ValueError(f"names an empty file: {text}")
    return Secret(content)
