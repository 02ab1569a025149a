"""Ark's error bodies."""

from __future__ import annotations

from aiohttp import web

from services.simulator.faults import Fault
from services.simulator.provider import Refused

_TYPES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict"}


def error(
    status: int, code: str, message: str, *, param: str = "", wait_s: float | None = None
) -> web.Response:
    """`{"error": {code, message, param, type}}`."""
    kind = _TYPES.get(status) or ("TooManyRequests" if status == 429 else "InternalServerError")
    request_id = "021795257600000000000000000000000000000000000000000"
    text = f"{message} Request id: {request_id}"
    headers = {"X-Request-Id": request_id}
    if wait_s is not None:
        headers["Retry-After"] = f"{wait_s:g}"
    body = {"error": {"code": code, "message": text, "param": param, "type": kind}}
    return web.json_response(body, status=status, headers=headers)


def invalid(param: str, message: str, suffix: str = "") -> Refused:
    """A parameter that is refused, to be raised."""
    code = f"InvalidParameter{suffix}"
    return Refused(
        error(
            400,
            code,
            f"The parameter `{param}` specified in the request is not valid: {message}.",
            param=param,
        )
    )


def missing(param: str) -> Refused:
    """A parameter that is missing, to be raised."""
    text = f"The request failed because it is missing the `{param}` parameter."
    return Refused(error(400, "MissingParameter", text, param=param))


def of_fault(fault: Fault, wait_s: float | None) -> web.Response:
    """Each fault in Ark's words."""
    match fault:
        case Fault.UNAUTHORIZED:
            return error(
                401, "AuthenticationError", "The API key or AK/SK in the request is missing or invalid."
            )
        case Fault.PAYMENT_REQUIRED:
            return error(
                403, "AccountOverdueError", "The request failed because your account has an overdue balance."
            )
        case Fault.FORBIDDEN:
            return error(
                403, "AccessDenied", "The request failed because you do not have access to the resource."
            )
        case Fault.MODERATED_BEFORE:
            text = "The request failed because the input text may contain sensitive information."
            return error(400, "InputTextSensitiveContentDetected", text)
        case Fault.RATE_LIMITED | Fault.RATE_LIMITED_WAIT:
            text = "The request rate exceeds the limit of requests per minute of the model."
            return error(429, "ModelAccountRpmRateLimitExceeded", text, wait_s=wait_s)
        case Fault.OVERLOADED:
            return error(429, "ServerOverloaded", "The service is currently unable to handle more requests.")
        case _:
            return error(500, "InternalServiceError", "The service encountered an unexpected internal error.")


def not_found(task_id: str) -> Refused:
    """A task that is not there, to be raised."""
    text = f"The specified resource {task_id} is not found."
    return Refused(error(404, "ResourceNotFound", text), "not found")
