"""OpenAI's error bodies."""

from __future__ import annotations

from aiohttp import web

from services.simulator.faults import Fault
from services.simulator.provider import Refused


def error(
    status: int,
    message: str,
    kind: str = "invalid_request_error",
    *,
    code: str | None = None,
    param: str | None = None,
    wait_s: float | None = None,
) -> web.Response:
    """`{"error": {message, type, param, code}}`."""
    headers = {}
    if wait_s is not None:
        headers = {"retry-after": f"{wait_s:g}", "retry-after-ms": f"{wait_s * 1000:.0f}"}
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status, headers=headers)


def invalid(param: str | None, message: str, code: str | None = None) -> Refused:
    """A parameter that is refused, to be raised."""
    return Refused(error(400, message, code=code, param=param))


def unknown_model(model: str) -> Refused:
    """A model that is not there, no longer there, or not for this account, to be raised."""
    text = f"The model `{model}` does not exist or you do not have access to it."
    return Refused(error(404, text, code="model_not_found"), "model")


def of_fault(fault: Fault, wait_s: float | None) -> web.Response:
    """Each fault in OpenAI's words."""
    match fault:
        case Fault.UNAUTHORIZED:
            return error(401, "Incorrect API key provided.", code="invalid_api_key")
        case Fault.PAYMENT_REQUIRED:
            text = "You exceeded your current quota, please check your plan and billing details."
            return error(429, text, "insufficient_quota", code="insufficient_quota")
        case Fault.FORBIDDEN:
            text = "Country, region, or territory not supported"
            return error(403, text, "request_forbidden", code="unsupported_country_region_territory")
        case Fault.MODERATED_BEFORE | Fault.MODERATED_AFTER:
            text = "Your request was rejected by the safety system."
            return error(400, text, "image_generation_user_error", code="moderation_blocked")
        case Fault.RATE_LIMITED | Fault.RATE_LIMITED_WAIT:
            text = "Rate limit reached for requests per min."
            return error(429, text, "requests", code="rate_limit_exceeded", wait_s=wait_s)
        case Fault.OVERLOADED:
            text = "The server is currently overloaded with other requests."
            return error(503, text, "service_unavailable_error", code="server_is_overloaded")
        case _:
            text = "The server had an error while processing your request."
            return error(500, text, "server_error")
