"""The one error that crosses services: what the caller can do, what happened, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What the caller can do about an error. Values are the canonical gRPC status names."""

    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"


# Not frozen: raising an exception sets __traceback__ and __context__ on it.
@dataclass(eq=False)
class ServiceError(Exception):
    """A refusal or failure that is part of a service's contract.

    `kind` is what the caller can do, `reason` what happened (an UPPER_SNAKE value of the
    service's `Reason` enum without its prefix), `metadata` every number that the message
    holds, and `message` a sentence that may be shown to a customer.
    """

    kind: Kind
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceError):
            return NotImplemented
        return (self.kind, self.reason, self.message, dict(self.metadata)) == (
            other.kind,
            other.reason,
            other.message,
            dict(other.metadata),
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.reason, self.message))


def internal_error() -> ServiceError:
    """What a caller sees of a bug; the traceback goes to the log and nowhere else."""
    return ServiceError(Kind.INTERNAL, "INTERNAL", "internal error")
