"""ServiceError on the wire: a gRPC status that carries google.rpc.ErrorInfo, and back, equal on the other side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from services.chassis.errors import Kind, ServiceError

DOMAIN: Final = "atelier"
DETAILS_KEY: Final = "grpc-status-details-bin"

# gRPC refuses trailing metadata beyond 8 KiB, and would then lose the whole error: what cannot fit is cut.
_MESSAGE_LIMIT_CHARS: Final = 500
_METADATA_LIMIT_ENTRIES: Final = 32
_METADATA_LIMIT_CHARS: Final = 200
_DETAILS_LIMIT_BYTES: Final = 4096

CODE_OF: Final[dict[Kind, grpc.StatusCode]] = {kind: grpc.StatusCode[kind.value] for kind in Kind}
NUMBER_OF: Final[dict[Kind, int]] = {kind: code.value[0] for kind, code in CODE_OF.items()}
_KIND_OF: Final[dict[int, Kind]] = {number: kind for kind, number in NUMBER_OF.items()} | {
    grpc.StatusCode.UNKNOWN.value[0]: Kind.INTERNAL,
    grpc.StatusCode.DATA_LOSS.value[0]: Kind.INTERNAL,
    grpc.StatusCode.OUT_OF_RANGE.value[0]: Kind.INVALID_ARGUMENT,
}

# What gRPC itself says names hosts and ports; a message may be shown to customers, so they get these instead.
_PLAIN_SENTENCE: Final[dict[Kind, str]] = {
    Kind.CANCELLED: "the request was cancelled",
    Kind.INVALID_ARGUMENT: "the request is not valid",
    Kind.DEADLINE_EXCEEDED: "the request took too long",
    Kind.NOT_FOUND: "not found",
    Kind.ALREADY_EXISTS: "it exists already",
    Kind.PERMISSION_DENIED: "the caller may not do this",
    Kind.RESOURCE_EXHAUSTED: "too much is being asked at once; try again shortly",
    Kind.FAILED_PRECONDITION: "this cannot be done now",
    Kind.ABORTED: "another change came first; try again",
    Kind.UNIMPLEMENTED: "the operation is not supported",
    Kind.INTERNAL: "internal error",
    Kind.UNAVAILABLE: "the service is temporarily unavailable; try again shortly",
    Kind.UNAUTHENTICATED: "the caller could not be identified",
}


def plain_error(kind: Kind) -> ServiceError:
    """An error that has no better reason than its kind: gRPC's own failures become these."""
    return ServiceError(kind, kind.value, _PLAIN_SENTENCE[kind])


def to_details(error: ServiceError) -> bytes:
    """The serialized google.rpc.Status of `error`, small enough for trailing metadata."""
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    for key, value in list(error.metadata.items())[:_METADATA_LIMIT_ENTRIES]:
        info.metadata[key[:_METADATA_LIMIT_CHARS]] = value[:_METADATA_LIMIT_CHARS]
    status = Status(code=NUMBER_OF[error.kind], message=error.message[:_MESSAGE_LIMIT_CHARS])
    status.details.add().Pack(info)
    details = status.SerializeToString()
    if len(details) <= _DETAILS_LIMIT_BYTES:
        return details
    info.metadata.clear()
    status.details[0].Pack(info)
    return status.SerializeToString()


def to_trailers(error: ServiceError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """The arguments of `context.abort` that send `error`."""
    return CODE_OF[error.kind], error.message[:_MESSAGE_LIMIT_CHARS], ((DETAILS_KEY, to_details(error)),)


def to_reply(error: ServiceError) -> tuple[int, str, bytes]:
    """Code, message and details of a DispatchReply that sends `error`."""
    return NUMBER_OF[error.kind], error.message[:_MESSAGE_LIMIT_CHARS], to_details(error)


def from_details(code: int, details: bytes) -> ServiceError:
    """The ServiceError that the other side raised; a plain one where `details` are not ours or are damaged.

    code: the canonical gRPC number; an unknown number is INTERNAL.
    """
    kind = _KIND_OF.get(code, Kind.INTERNAL)
    try:
        status = Status.FromString(details)
        for detail in status.details:
            info = ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN and info.reason:
                return ServiceError(kind, info.reason, status.message, dict(info.metadata))
    except DecodeError:
        return plain_error(kind)
    return plain_error(kind)


def from_rpc_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """The ServiceError behind a failed gRPC call, whoever failed: the other side, or gRPC itself."""
    details = _details_of(error.trailing_metadata() or ())
    return from_details(error.code().value[0], details)


def _details_of(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return value
    return b""
