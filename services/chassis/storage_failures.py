"""How a database can fail its callers, the same on both engines.

The messages may reach a customer, so they name no host, file or driver; the driver's own words are the
exception's cause.
"""

from __future__ import annotations

from services.chassis.errors import Kind, ServiceError

UNAVAILABLE_REASON = "DATABASE_UNAVAILABLE"
CONTENTION_REASON = "DATABASE_CONTENTION"


class CommitOutcomeUnknown(ServiceError):
    """The connection broke while COMMIT was under way: the transaction may have happened or not.

    Work that is idempotent by keys is run again; anything else must be read back before it is repeated.
    """


def commit_outcome_unknown() -> CommitOutcomeUnknown:
    """UNAVAILABLE / DATABASE_UNAVAILABLE, told apart by its class."""
    return CommitOutcomeUnknown(
        Kind.UNAVAILABLE,
        UNAVAILABLE_REASON,
        "the outcome is not known; repeat the request with the same idempotency key",
    )


def unavailable() -> ServiceError:
    """The database cannot be reached or cannot write, and nothing was changed."""
    return ServiceError(
        Kind.UNAVAILABLE, UNAVAILABLE_REASON, "storage is not available at the moment, try again"
    )


def contention() -> ServiceError:
    """The engine gave this transaction up for another one's sake (deadlock, lock or statement time-out);
    nothing was changed.
    """
    return ServiceError(Kind.ABORTED, CONTENTION_REASON, "the request collided with others, try again")


def refused(reason: str, message: str) -> ServiceError:
    """FAILED_PRECONDITION: the database as it is must not be used; `message` is for the operator."""
    return ServiceError(Kind.FAILED_PRECONDITION, reason, message)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may go through if it is run again a little later."""
    return isinstance(error, ServiceError) and error.reason in (UNAVAILABLE_REASON, CONTENTION_REASON)
