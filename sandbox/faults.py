"""Faults that can happen, and the requests that they happen to.

A list of faults is like a script: a request meets the first fault that is due, and does not use up
the later ones.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from sandbox import responses
from sandbox.limits import RetryAfter, retry_headers
from sandbox.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Unpack

    from sandbox.request import Kind, Request

# All faults share one lock, so that a fault is plain data that can be copied.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Delivery:
    """How a response is sent.

    Attributes:
        delay: Seconds before the response, besides the latency.
        seconds_per_byte: The pause after each byte of the body; None sends it in one piece.
        reset_after: The number of bytes of the body after which the connection is reset (RST). With
            0, not even the headers are sent.
        cut_after: The number of bytes of the body after which the connection is closed properly,
            although `Content-Length` announced the whole body.
        prelude: Bytes that are sent at once, before the response.
        preludes: How often they are sent.
        seconds_per_prelude: The pause after each prelude.
        endless: Bytes that are then sent again and again, with the same pause, until the client
            leaves.
    """

    delay: float = 0.0
    seconds_per_byte: float | None = None
    reset_after: int | None = None
    cut_after: int | None = None
    prelude: bytes = b""
    preludes: int = 1
    seconds_per_prelude: float = 0.0
    endless: bytes = b""

    @property
    def is_complete(self) -> bool:
        """Return whether the whole response is sent in the end."""
        return not self.endless and self.reset_after is None and self.cut_after is None


@dataclass
class Fault:
    """Something that goes wrong for the requests that match.

    Attributes:
        response: Makes the response that replaces the normal one; None keeps the normal one.
        delivery: How the response is sent.
        account_status: The status that the account gets, and keeps.
        times: The number of requests that it happens to; None for all of them.
        after: The number of matching requests that pass first.
        kind: Match only requests of this kind.
        when: Match only requests for which this returns True. Called in the server's thread.
    """

    response: Callable[[], Response] | None = None
    delivery: Delivery = field(default_factory=Delivery)
    account_status: str | None = None
    times: int | None = 1
    after: int = 0
    kind: Kind | None = None
    when: Callable[[Request], bool] | None = None

    def take(self, request: Request) -> bool:
        """Use the fault for this request if it is due; return whether it was."""
        if self.kind is not None and request.kind != self.kind:
            return False
        if self.when is not None and not self.when(request):
            return False
        with _LOCK:
            if self.times is not None and self.times <= 0:
                return False
            if self.after > 0:
                self.after -= 1
                return False
            if self.times is not None:
                self.times -= 1
            return True


def first_due(script: Iterable[Fault], request: Request) -> Fault | None:
    """Use and return the first fault that is due for a request."""
    return next((fault for fault in list(script) if fault.take(request)), None)


class Match(TypedDict, total=False):
    """The requests that a fault matches; see `Fault`."""

    times: int | None
    after: int
    kind: Kind | None
    when: Callable[[Request], bool] | None


# --- faults in general ----------------------------------------------------------------------------


def truto_error(
    status: int,
    message: str = "Something went wrong",
    *,
    insight: Mapping[str, Any] | None = None,
    details: Any = None,
    headers: Mapping[str, str] | None = None,
    **match: Unpack[Match],
) -> Fault:
    """Return Truto's own error. `insight` is its whole `truto_error_insight`."""
    response = responses.truto_error(
        status, message, insight=insight, details=details, headers=headers
    )
    return Fault(lambda: response, **match)


def vendor_error(
    status: int,
    message: str = "",
    *,
    raw_response: Any = "The vendor could not do this",
    insight: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **match: Unpack[Match],
) -> Fault:
    """Return the vendor's error. `raw_response` is its body, parsed or as text."""
    response = responses.vendor_error(
        status, message, raw_response=raw_response, insight=insight, headers=headers
    )
    return Fault(lambda: response, **match)


def body(
    content: str | bytes,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    **match: Unpack[Match],
) -> Fault:
    """Return a response with any body, such as HTML, invalid JSON or another envelope."""
    raw = content.encode() if isinstance(content, str) else content
    response = Response(status, raw, headers or {}, content_type)
    return Fault(lambda: response, **match)


GATEWAY_FORMS: Mapping[str, tuple[str, str]] = {
    "html": ("<html><head><title>Blocked</title></head><body>nginx</body></html>", "text/html"),
    "empty": ("", "text/plain"),
    "text": ("no healthy upstream", "text/plain"),
    "json": ('{"message": "Forbidden", "requestId": "r-1"}', "application/json"),
    # Some API gateways send this form, which lacks a part of Truto's envelope.
    "status": ('{"statusCode": 401, "message": "Access denied"}', "application/json"),
}
"""The responses of load balancers, firewalls and API gateways in place of the API's."""


def endless(begin: bytes, more: bytes, pause: float = 0.01, **match: Unpack[Match]) -> Fault:
    """Send bytes that begin a response, and then others again and again without an end."""
    delivery = Delivery(prelude=begin, endless=more, seconds_per_prelude=pause)
    return Fault(delivery=delivery, **match)


def gateway(status: int = 503, form: str = "html", **match: Unpack[Match]) -> Fault:
    """Return a response of a gateway, firewall or proxy in front of Truto, in one of its forms."""
    content, content_type = GATEWAY_FORMS[form]
    return body(content, status, content_type, **match)


def redirect(location: str, status: int = 302, **match: Unpack[Match]) -> Fault:
    """Redirect to another address."""
    response = Response(status, b"", {"Location": location}, "text/plain", immediate=True)
    return Fault(lambda: response, **match)


def reset(after_bytes: int = 0, **match: Unpack[Match]) -> Fault:
    """Reset the connection after so many bytes of the normal response's body.

    With 0, reset it before any byte of the response, including its headers.
    """
    return Fault(delivery=Delivery(reset_after=after_bytes), **match)


def cut(after_bytes: int, **match: Unpack[Match]) -> Fault:
    """Close the connection after so many bytes of the normal response's body."""
    return Fault(delivery=Delivery(cut_after=after_bytes), **match)


def hang(seconds: float = 3_600.0, **match: Unpack[Match]) -> Fault:
    """Send no response for so many seconds, or until the sandbox stops."""
    return Fault(delivery=Delivery(delay=seconds), **match)


def delay(seconds: float, **match: Unpack[Match]) -> Fault:
    """Send the normal response so many seconds later."""
    return Fault(delivery=Delivery(delay=seconds), **match)


def drip(seconds_per_byte: float = 0.1, **match: Unpack[Match]) -> Fault:
    """Send the body of the normal response byte by byte."""
    return Fault(delivery=Delivery(seconds_per_byte=seconds_per_byte), **match)


def interim(status: int = 103, delay: float = 0.0, count: int = 1, **match: Unpack[Match]) -> Fault:
    """Send interim responses, each followed by a pause, and then the normal response."""
    prelude = f"HTTP/1.1 {status} Interim\r\nLink: </style.css>\r\n\r\n".encode()
    delivery = Delivery(prelude=prelude, preludes=count, seconds_per_prelude=delay)
    return Fault(delivery=delivery, **match)


# --- Truto's rows of the error table --------------------------------------------------------------


bad_request = partial(truto_error, 400, "The request could not be understood")
"""Truto's 400 for a wrong request."""


def missing_parameters(*names: str, **match: Unpack[Match]) -> Fault:
    """Return Truto's 400 for a request that lacks parameters the vendor requires."""
    return Fault(lambda: missing_parameters_response(names or ("workspace[id]",)), **match)


def resource_not_supported(resource: str = "segments", **match: Unpack[Match]) -> Fault:
    """Return Truto's 400 for a resource that the integration does not have."""
    return Fault(lambda: not_supported_response(resource, "klaviyo"), **match)


token_refused = partial(truto_error, 401, "Unauthorized")
"""Truto's 401 for an API token that is missing, wrong or expired."""
token_forbidden = partial(truto_error, 403, "Forbidden resource")
"""Truto's 403 for an API token that may not do this."""
account_not_found = partial(truto_error, 404, "Integrated account not found")
"""Truto's 404 for an account that the token's environment does not have."""


def truto_rate_limited(
    seconds: float = 10.0, form: RetryAfter = "seconds", **match: Unpack[Match]
) -> Fault:
    """Return Truto's 429."""
    return Fault(lambda: truto_rate_limit_response(retry_headers(form, seconds)), **match)


def truto_failed(status: int = 500, **match: Unpack[Match]) -> Fault:
    """Return Truto's 500."""
    return truto_error(status, "Internal server error", **match)


bad_gateway = partial(truto_error, 502, "Invalid response from the vendor")
"""Truto's 502 for an invalid response from the vendor."""
gateway_timeout = partial(truto_error, 504, "The vendor did not respond in time")
"""Truto's 504 if the vendor does not respond in time."""
account_blocked = partial(
    truto_error, 503, "This account has been blocked. Please contact support@truto.one"
)
"""Truto's 503 for a blocked account, with which only Truto's support can help."""


# --- the vendor's rows of the error table ---------------------------------------------------------


def stale_cursor(**match: Unpack[Match]) -> Fault:
    """Return the vendor's 400 for an expired cursor; by default only if a cursor was sent."""
    match.setdefault("when", lambda request: request.param("next_cursor") is not None)
    return Fault(stale_cursor_response, **match)


def credentials_refused(**match: Unpack[Match]) -> Fault:
    """Return the vendor's 401, and set the account to `needs_reauth`: later requests fail too."""
    return Fault(credentials_refused_response, account_status="needs_reauth", **match)


def scopes_missing(*scopes: str, **match: Unpack[Match]) -> Fault:
    """Return the vendor's 403 for a connection that lacks OAuth scopes."""
    value = {"missing_scopes": list(scopes or ("segments:read",))}
    description = "The connected account does not have the required scopes."
    return vendor_error(
        403,
        "The connection is not allowed to do this",
        raw_response={"errors": [{"status": 403, "code": "permission_denied"}]},
        insight=responses.insight("forbidden_error", description, value),
        **match,
    )


vendor_not_found = partial(vendor_error, 404, raw_response={"errors": [{"detail": "Not found"}]})
"""The vendor's 404."""


def vendor_refused(status: int = 422, **match: Unpack[Match]) -> Fault:
    """Return the vendor's 405, 409 or 422, whose reason is only in `raw_response`."""
    reason = {"errors": [{"status": status, "detail": "The request cannot be processed"}]}
    return vendor_error(status, raw_response=reason, **match)


def vendor_rate_limited(
    seconds: float = 1.0, form: RetryAfter = "seconds", **match: Unpack[Match]
) -> Fault:
    """Return the vendor's 429, with the time to wait in one of its forms."""
    return Fault(lambda: vendor_rate_limit_response(retry_headers(form, seconds)), **match)


def vendor_failed(status: int = 500, **match: Unpack[Match]) -> Fault:
    """Return the vendor's 500; 502 and 504 look the same."""
    return vendor_error(status, raw_response="Internal Server Error", **match)


vendor_unavailable = partial(vendor_error, 503, raw_response="Service Unavailable")
"""The vendor's 503."""


# --- responses that the API also sends without a fault --------------------------------------------


def missing_parameters_response(names: Iterable[str]) -> Response:
    """Return Truto's 400 that names the parameters which the request lacks."""
    missing = list(names)
    return responses.truto_error(
        400,
        f"Missing required query parameters: {', '.join(missing)}",
        insight=responses.insight(
            "missing_required_query_parameters",
            "The following query parameters are required and missing from the request.",
            missing,
        ),
    )


def not_supported_response(resource: str, integration: str) -> Response:
    """Return Truto's 400 for a resource that the integration does not have."""
    return responses.truto_error(
        400, f"Resource {resource} is not supported by the integration {integration}"
    )


def truto_rate_limit_response(headers: Mapping[str, str]) -> Response:
    """Return Truto's 429."""
    return responses.truto_error(429, "Too many requests, please try again later", headers=headers)


def vendor_rate_limit_response(headers: Mapping[str, str]) -> Response:
    """Return the vendor's 429."""
    description = "The vendor's rate limit has been reached."
    return responses.vendor_error(
        429,
        "Request was throttled",
        raw_response={"errors": [{"status": 429, "code": "throttled"}]},
        insight=responses.insight("rate_limit_error", description, None),
        headers=headers,
    )


def stale_cursor_response() -> Response:
    """Return the vendor's 400 for a cursor that is invalid or has expired."""
    error = {
        "status": 400,
        "code": "invalid",
        "detail": "The cursor is invalid or has expired.",
        "source": {"parameter": "page[cursor]"},
    }
    return responses.vendor_error(400, "Invalid cursor", raw_response={"errors": [error]})


def credentials_refused_response() -> Response:
    """Return the vendor's 401 for credentials that it no longer accepts."""
    return responses.vendor_error(
        401,
        "The credentials of the connected account were refused",
        raw_response={"error": "invalid_grant", "error_description": "Token has been revoked"},
    )
