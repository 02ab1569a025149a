"""What this service refuses, one constructor for each reason of the proto."""

from __future__ import annotations

from services.chassis.errors import Kind, ServiceError


def invalid_request(field: str, rule: str) -> ServiceError:
    """A field is missing or out of range."""
    return ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", f"{field} {rule}", {"field": field})


def no_capable_account() -> ServiceError:
    """No enabled account could take the request, even when idle."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "NO_CAPABLE_ACCOUNT",
        "no enabled account could take this request, even when idle",
    )


def lease_ended(attempt_id: str) -> ServiceError:
    """The lease was given back before it was made, or has ended."""
    return ServiceError(
        Kind.FAILED_PRECONDITION, "LEASE_ENDED", "the attempt's lease has ended", {"attempt_id": attempt_id}
    )


def attempt_not_found(attempt_id: str) -> ServiceError:
    """No lease or attempt has that id."""
    return ServiceError(
        Kind.NOT_FOUND, "ATTEMPT_NOT_FOUND", "there is no such attempt", {"attempt_id": attempt_id}
    )


def attempt_state(attempt_id: str, state: str) -> ServiceError:
    """The attempt is not in a state that allows the call."""
    metadata = {"attempt_id": attempt_id, "state": state}
    return ServiceError(Kind.FAILED_PRECONDITION, "ATTEMPT_STATE", f"the attempt is {state}", metadata)


def shutting_down() -> ServiceError:
    """This process takes nothing new; another, or its next life, does."""
    return ServiceError(Kind.UNAVAILABLE, "SHUTTING_DOWN", "the service is shutting down, try again")


def account_not_found(account_id: str) -> ServiceError:
    """No account has that id."""
    return ServiceError(
        Kind.NOT_FOUND, "ACCOUNT_NOT_FOUND", "there is no such account", {"account_id": account_id}
    )


def account_exists(label: str) -> ServiceError:
    """Another account has that label."""
    return ServiceError(
        Kind.ALREADY_EXISTS, "ACCOUNT_EXISTS", "an account with that label exists", {"label": label}
    )


def credentials_in_use(label: str, account_id: str) -> ServiceError:
    """Another account of the provider has the same key."""
    return ServiceError(
        Kind.ALREADY_EXISTS,
        "CREDENTIALS_IN_USE",
        f'the account "{label}" ({account_id}) has this key already: change that one instead; '
        "as two accounts, its limits and its balance would count twice",
        {"label": label, "account_id": account_id},
    )


def unknown_provider(provider: str) -> ServiceError:
    """This release has no adapter for that provider."""
    return ServiceError(
        Kind.INVALID_ARGUMENT,
        "UNKNOWN_PROVIDER",
        "there is no adapter for that provider",
        {"provider": provider},
    )


def reference_refused(rule: str) -> ServiceError:
    """The content of a staged reference is not taken."""
    return ServiceError(
        Kind.INVALID_ARGUMENT, "REFERENCE_REFUSED", "the image is not one that is taken", {"rule": rule}
    )


def too_busy() -> ServiceError:
    """This process takes in as many references as it can."""
    return ServiceError(
        Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL", "too many references are on their way, try again later"
    )


def upload_too_slow() -> ServiceError:
    """An upload paused for too long, or took too long in all."""
    return ServiceError(Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the upload took too long")


def references_unusable() -> ServiceError:
    """The folder of references cannot be read or written: an operator's to mend."""
    return ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "references cannot be kept at the moment")


def media_unusable() -> ServiceError:
    """The folder of outputs cannot be read or written: an operator's to mend."""
    return ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "outputs cannot be read or deleted at the moment")


def provider_unreachable() -> ServiceError:
    """The provider did not answer in time; nothing is known that was not known before."""
    return ServiceError(Kind.UNAVAILABLE, "PROVIDER_UNREACHABLE", "the provider did not answer")


def credentials_refused(detail: str) -> ServiceError:
    """The provider does not accept the credentials; nothing was stored."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "CREDENTIALS_REFUSED",
        f"the provider does not accept these credentials, and nothing was stored: {detail}",
        {"detail": detail},
    )


def credentials_unproven(detail: str) -> ServiceError:
    """The provider could not be asked about new credentials; nothing was stored."""
    return ServiceError(
        Kind.UNAVAILABLE,
        "PROVIDER_UNREACHABLE",
        "the provider could not be asked about these credentials, and nothing was stored; "
        f"set unchecked to store them all the same: {detail}",
        {"detail": detail},
    )


def unknown_hint() -> ServiceError:
    """Nothing waits for a hint at that address."""
    return ServiceError(Kind.NOT_FOUND, "UNKNOWN_HINT", "nothing waits for a hint at that address")
