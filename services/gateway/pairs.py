"""Reads what comes as flat names and values, query strings and forms, into a contract's struct."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from services.gateway import errors, reading

T = TypeVar("T", bound=msgspec.Struct)

_FORM: Final = "application/x-www-form-urlencoded"
# The largest form that a contract has needs three.
_FIELDS_LIMIT: Final = 32


def query(request: web.Request, wire: type[T]) -> T:
    """The query string as a `wire`; unknown names are ignored. Raises MALFORMED_REQUEST that names the parameter."""
    return _read(request.query.items(), wire)


def form(request: web.Request, body: bytes, wire: type[T]) -> T:
    """The form in `body` as a `wire`; unknown names are ignored. Raises MALFORMED_REQUEST that names the field."""
    declared = request.headers.get("Content-Type", "")
    if declared.partition(";")[0].strip().lower() != _FORM:
        raise errors.malformed_request(f"The Content-Type must be {_FORM}.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_LIMIT
        )
    except ValueError:
        raise errors.malformed_request("The request body must be one form in UTF-8.") from None
    return _read(pairs, wire)


def _read(pairs: Iterable[tuple[str, str]], wire: type[T]) -> T:
    known = {field.encode_name for field in msgspec.structs.fields(wire)}
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            continue
        if name in given:
            raise errors.malformed_request(f"{name} must be given once.", name)
        given[name] = value
    try:
        return msgspec.convert(given, wire, strict=False)
    except msgspec.ValidationError as fault:
        raise reading.explained(str(fault), wire) from None
