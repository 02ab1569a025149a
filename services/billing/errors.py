"""Every refusal of billing, in one place. Messages may be shown to customers; numbers travel as metadata."""

from __future__ import annotations

from services.chassis.errors import Kind, ServiceError


def credits_text(amount_millis: int) -> str:
    """An amount as people read it: 20000 is "20", 1500 is "1.5"."""
    sign = "-" if amount_millis < 0 else ""
    whole, rest = divmod(abs(amount_millis), 1000)
    return f"{sign}{whole}" + (f".{rest:03d}".rstrip("0") if rest else "")


def invalid_request(field: str, problem: str) -> ServiceError:
    """`field` of the request is missing or out of range; `problem` continues the sentence."""
    return ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", f"{field} {problem}.", {"field": field})


def invalid_api_key() -> ServiceError:
    """One answer for every key that does not work, so that nothing can be learnt from it."""
    return ServiceError(Kind.UNAUTHENTICATED, "INVALID_API_KEY", "The API key is missing or not valid.")


def insufficient_credits(required_millis: int, available_millis: int) -> ServiceError:
    """The wallet cannot pay."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        f"This needs {credits_text(required_millis)} credits and {credits_text(available_millis)} are available.",
        {"required_millis": str(required_millis), "available_millis": str(available_millis)},
    )


def balance_too_low(required_millis: int, available_millis: int) -> ServiceError:
    """An adjustment would take more than is available."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "BALANCE_TOO_LOW",
        f"{credits_text(required_millis)} credits cannot be taken: {credits_text(available_millis)} are available.",
        {"required_millis": str(required_millis), "available_millis": str(available_millis)},
    )


def idempotency_key_conflict() -> ServiceError:
    """The key was used before, with other parameters."""
    return ServiceError(
        Kind.ALREADY_EXISTS,
        "IDEMPOTENCY_KEY_CONFLICT",
        "The idempotency key was used before with other parameters.",
    )


def hold_released(job_id: str) -> ServiceError:
    """The hold was given back, or refused in advance by a tombstone."""
    return ServiceError(
        Kind.FAILED_PRECONDITION, "HOLD_RELEASED", "The job's hold was released.", {"job_id": job_id}
    )


def hold_captured(job_id: str) -> ServiceError:
    """The hold was charged already."""
    return ServiceError(
        Kind.FAILED_PRECONDITION, "HOLD_CAPTURED", "The job's hold was captured already.", {"job_id": job_id}
    )


def hold_not_found(job_id: str) -> ServiceError:
    """This wallet has no hold for the job."""
    return ServiceError(
        Kind.NOT_FOUND, "HOLD_NOT_FOUND", "There is no hold for this job.", {"job_id": job_id}
    )


def amount_exceeds_hold(amount_millis: int, held_millis: int) -> ServiceError:
    """More was to be captured than is held."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "AMOUNT_EXCEEDS_HOLD",
        f"{credits_text(amount_millis)} credits cannot be captured: {credits_text(held_millis)} are held.",
        {"amount_millis": str(amount_millis), "held_millis": str(held_millis)},
    )


def unknown_sku(storefront: str, sku: str) -> ServiceError:
    """The storefront's price list has no such SKU."""
    return ServiceError(
        Kind.INVALID_ARGUMENT,
        "UNKNOWN_SKU",
        "The price list has no such item.",
        {"storefront": storefront, "sku": sku},
    )


def unknown_storefront(storefront: str) -> ServiceError:
    """No price list, hence no storefront, of that name."""
    return ServiceError(
        Kind.NOT_FOUND, "UNKNOWN_STOREFRONT", "There is no such storefront.", {"storefront": storefront}
    )


def customer_not_found(customer_id: str) -> ServiceError:
    """No customer with that id."""
    return ServiceError(
        Kind.NOT_FOUND, "CUSTOMER_NOT_FOUND", "There is no such customer.", {"customer_id": customer_id}
    )


def customer_inactive(customer_id: str) -> ServiceError:
    """The customer exists, but may not spend."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "CUSTOMER_INACTIVE",
        "The customer is suspended.",
        {"customer_id": customer_id},
    )


def key_not_found(key_id: str) -> ServiceError:
    """No API key with that id."""
    return ServiceError(Kind.NOT_FOUND, "KEY_NOT_FOUND", "There is no such API key.", {"key_id": key_id})


def spend_limit_reached(
    period: str, limit_millis: int, spent_millis: int, required_millis: int
) -> ServiceError:
    """The customer or the key has spent, or holds, what it may in this `period`: "day" or "month"."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "SPEND_LIMIT_REACHED",
        f"The spend limit of this {period} is {credits_text(limit_millis)} credits, and {credits_text(spent_millis)} "
        "are spent or reserved.",
        {
            "period": period,
            "limit_millis": str(limit_millis),
            "spent_millis": str(spent_millis),
            "required_millis": str(required_millis),
            "available_millis": str(max(0, limit_millis - spent_millis)),
        },
    )


def sign_up_refused() -> ServiceError:
    """One answer for every address that cannot be signed up, so that nobody learns which are known."""
    return ServiceError(
        Kind.INVALID_ARGUMENT, "SIGN_UP_REFUSED", "This address cannot be signed up.", {"field": "email"}
    )


def invalid_login() -> ServiceError:
    """One answer for an unknown address, a wrong password and a suspended customer."""
    return ServiceError(Kind.UNAUTHENTICATED, "INVALID_LOGIN", "The email address or the password is wrong.")


def invalid_reset_token() -> ServiceError:
    """The token is unknown, used or too old."""
    return ServiceError(
        Kind.INVALID_ARGUMENT,
        "INVALID_RESET_TOKEN",
        "The token is not valid, or not any more.",
        {"field": "token"},
    )


def user_not_found() -> ServiceError:
    """No user with that id, or of that customer."""
    return ServiceError(Kind.NOT_FOUND, "USER_NOT_FOUND", "There is no such user.")


def too_busy() -> ServiceError:
    """More is asked of a bounded worker than it can take; the same for everybody."""
    return ServiceError(
        Kind.RESOURCE_EXHAUSTED, "OVERLOADED", "Too many requests are waiting; try again shortly."
    )
