"""Faults: what can go wrong, and to which requests it happens.

A list of faults reads like a script: a request meets the first fault that is due, and does not use
up the later ones.
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

# One lock for all faults, so that a fault is plain data that can be copied.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Delivery:
    """How a response is sent.

    Attributes:
        delay: Seconds before the response, besides the latency.
        seconds_per_byte: Pause after each byte of the body; none sends it in one piece.
        reset_after: Bytes of the body after which the connection is reset (RST). At 0 not even
            the headers are sent.
        cut_after: Bytes of the body after which the connection is closed properly, although
            `Content-Length` announced all of it.
        prelude: Bytes that are sent at once, in front of the response.
        preludes: How often they are sent.
        seconds_per_prelude: Pause after each.
        endless: Bytes that are sent after that again and again, with the same pause, until the
            client leaves.
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
        """Whether the whole response is sent in the end."""
        return not self.endless and self.reset_after is None and self.cut_after is None


@dataclass
class Fault:
    """Something that goes wrong, for the requests that match.

    Attributes:
        response: Makes the response sent instead of the normal one; none keeps the normal one.
        delivery: How the response is sent.
        account_status: The status that the account gets, and keeps.
        times: How many requests it happens to; none for all of them.
        after: How many matching requests pass first.
        kind: Matches only requests of this kind.
        when: Matches only requests that this is true for. Called in the server's thread.
    """

    response: Callable[[], Response] | None = None
    delivery: Delivery = field(default_factory=Delivery)
    account_status: str | None = None
    times: int | None = 1
    after: int = 0
    kind: Kind | None = None
    when: Callable[[Request], bool] | None = None

    def take(self, request: Request) -> bool:
        """Use the fault up for this request; false if it is not due."""
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
    """Take the first fault that is due for a request."""
    return next((fault for fault in list(script) if fault.take(request)), None)


class Match(TypedDict, total=False):
    """Which requests a fault matches; see `Fault`."""

    times: int | None
    after: int
    kind: Kind | None
    when: Callable[[Request], bool] | None


# --- what goes wrong in general -------------------------------------------------------------------


def truto_error(
    status: int,
    message: str = "Something went wrong",
    *,
    insight: Mapping[str, Any] | None = None,
    details: Any = None,
    headers: Mapping[str, str] | None = None,
    **match: Unpack[Match],
) -> Fault:
    """An error of Truto's own. `insight` is the whole of `truto_error_insight`."""
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
    """An error of the vendor's. `raw_response` is its body, parsed or as text."""
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
    """Any body, unchanged: HTML, invalid JSON, truncated JSON, another envelope."""
    raw = content.encode() if isinstance(content, str) else content
    response = Response(status, raw, headers or {}, content_type)
    return Fault(lambda: response, **match)


GATEWAY_FORMS: Mapping[str, tuple[str, str]] = {
    "html": ("<html><head><title>Blocked</title></head><body>nginx</body></html>", "text/html"),
    "empty": ("", "text/plain"),
    "text": ("no healthy upstream", "text/plain"),
    "json": ('{"message": "Forbidden", "requestId": "r-1"}', "application/json"),
    # The form of some API gateways: not all of Truto's.
    "status": ('{"statusCode": 401, "message": "Access denied"}', "application/json"),
}
"""How load balancers, firewalls and API gateways answer in the place of the API."""


def endless(begin: bytes, more: bytes, pause: float = 0.01, **match: Unpack[Match]) -> Fault:
    """Bytes that begin a response, and then others again and again, without an end."""
    delivery = Delivery(prelude=begin, endless=more, seconds_per_prelude=pause)
    return Fault(delivery=delivery, **match)


def gateway(status: int = 503, form: str = "html", **match: Unpack[Match]) -> Fault:
    """An answer of a gateway, firewall or proxy in front of Truto, in a form of its own."""
    content, content_type = GATEWAY_FORMS[form]
    return body(content, status, content_type, **match)


def redirect(location: str, status: int = 302, **match: Unpack[Match]) -> Fault:
    """A redirect to another address."""
    response = Response(status, b"", {"Location": location}, "text/plain", immediate=True)
    return Fault(lambda: response, **match)


def reset(after_bytes: int = 0, **match: Unpack[Match]) -> Fault:
    """The normal response, until the connection is reset after so many bytes of the body.

    At 0 the connection is reset before any byte of the response, its headers included.
    """
    return Fault(delivery=Delivery(reset_after=after_bytes), **match)


def cut(after_bytes: int, **match: Unpack[Match]) -> Fault:
    """The normal response, until the connection is closed after so many bytes of the body."""
    return Fault(delivery=Delivery(cut_after=after_bytes), **match)


def hang(seconds: float = 3_600.0, **match: Unpack[Match]) -> Fault:
    """No response for so many seconds; abandoned when the sandbox stops."""
    return Fault(delivery=Delivery(delay=seconds), **match)


def delay(seconds: float, **match: Unpack[Match]) -> Fault:
    """The normal response, so many seconds later."""
    return Fault(delivery=Delivery(delay=seconds), **match)


def drip(seconds_per_byte: float = 0.1, **match: Unpack[Match]) -> Fault:
    """The normal response, its body byte by byte."""
    return Fault(delivery=Delivery(seconds_per_byte=seconds_per_byte), **match)


def interim(status: int = 103, delay: float = 0.0, count: int = 1, **match: Unpack[Match]) -> Fault:
    """Interim responses, each so many seconds before what follows; then the normal response."""
    prelude = f"HTTP/1.1 {status} Interim\r\nLink: </style.css>\r\n\r\n".encode()
    delivery = Delivery(prelude=prelude, preludes=count, seconds_per_prelude=delay)
    return Fault(delivery=delivery, **match)


# --- the rows of the error table: Truto's own -----------------------------------------------------


bad_request = partial(truto_error, 400, "The request could not be understood")
"""Truto's 400: the request is wrong."""


def missing_parameters(*names: str, **match: Unpack[Match]) -> Fault:
    """Truto's 400: the vendor requires parameters that the request lacks."""
    return Fault(lambda: missing_parameters_response(names or ("workspace[id]",)), **match)


def resource_not_supported(resource: str = "segments", **match: Unpack[Match]) -> Fault:
    """Truto's 400: the integration does not have this resource."""
    return Fault(lambda: not_supported_response(resource, "klaviyo"), **match)


token_refused = partial(truto_error, 401, "Unauthorized")
"""Truto's 401: the API token is missing, wrong or expired."""
token_forbidden = partial(truto_error, 403, "Forbidden resource")
"""Truto's 403: the API token may not do this."""
account_not_found = partial(truto_error, 404, "Integrated account not found")
"""Truto's 404: the token's environment has no such account."""


def truto_rate_limited(
    seconds: float = 10.0, form: RetryAfter = "seconds", **match: Unpack[Match]
) -> Fault:
    """Truto's 429."""
    return Fault(lambda: truto_rate_limit_response(retry_headers(form, seconds)), **match)


def truto_failed(status: int = 500, **match: Unpack[Match]) -> Fault:
    """Truto's 500."""
    return truto_error(status, "Internal server error", **match)


bad_gateway = partial(truto_error, 502, "Invalid response from the vendor")
"""Truto's 502: an invalid response from the vendor."""
gateway_timeout = partial(truto_error, 504, "The vendor did not respond in time")
"""Truto's 504: no response from the vendor in time."""
account_blocked = partial(
    truto_error, 503, "This account has been blocked. Please contact support@truto.one"
)
"""Truto's 503: the account is blocked, and only Truto's support can help."""


# --- the rows of the error table: the vendor's ----------------------------------------------------


def stale_cursor(**match: Unpack[Match]) -> Fault:
    """The vendor's 400 for an expired cursor; by default only for requests with a cursor."""
    match.setdefault("when", lambda request: request.param("next_cursor") is not None)
    return Fault(stale_cursor_response, **match)


def credentials_refused(**match: Unpack[Match]) -> Fault:
    """The vendor's 401: the account becomes `needs_reauth`, so later requests fail too."""
    return Fault(credentials_refused_response, account_status="needs_reauth", **match)


def scopes_missing(*scopes: str, **match: Unpack[Match]) -> Fault:
    """The vendor's 403: the connection lacks OAuth scopes."""
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
    """The vendor's 405, 409 or 422, with an empty message: the reason is in `raw_response`."""
    reason = {"errors": [{"status": status, "detail": "The request cannot be processed"}]}
    return vendor_error(status, raw_response=reason, **match)


def vendor_rate_limited(
    seconds: float = 1.0, form: RetryAfter = "seconds", **match: Unpack[Match]
) -> Fault:
    """The vendor's 429, with the time to wait in one of its forms."""
    return Fault(lambda: vendor_rate_limit_response(retry_headers(form, seconds)), **match)


def vendor_failed(status: int = 500, **match: Unpack[Match]) -> Fault:
    """The vendor's 500; 502 and 504 look the same."""
    return vendor_error(status, raw_response="Internal Server Error", **match)


vendor_unavailable = partial(vendor_error, 503, raw_response="Service Unavailable")
"""The vendor's 503."""


# --- responses that the API also sends without a fault --------------------------------------------


def missing_parameters_response(names: Iterable[str]) -> Response:
    """Truto's 400 that names the parameters which the request lacks."""
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
    """Truto's 400 for a resource that the integration does not have."""
    return responses.truto_error(
        400, f"Resource {resource} is not supported by the integration {integration}"
    )


def truto_rate_limit_response(headers: Mapping[str, str]) -> Response:
    """Truto's 429."""
    return responses.truto_error(429, "Too many requests, please try again later", headers=headers)


def vendor_rate_limit_response(headers: Mapping[str, str]) -> Response:
    """The vendor's 429."""
    description = "The vendor's rate limit has been reached."
    return responses.vendor_error(
        429,
        "Request was throttled",
        raw_response={"errors": [{"status": 429, "code": "throttled"}]},
        insight=responses.insight("rate_limit_error", description, None),
        headers=headers,
    )


def stale_cursor_response() -> Response:
    """The vendor's 400 for a cursor that is invalid or has expired."""
    error = {
        "status": 400,
        "code": "invalid",
        "detail": "The cursor is invalid or has expired.",
        "source": {"parameter": "page[cursor]"},
    }
    return responses.vendor_error(400, "Invalid cursor", raw_response={"errors": [error]})


def credentials_refused_response() -> Response:
    """The vendor's 401 for credentials that it no longer accepts."""
    return responses.vendor_error(
        401,
        "The credentials of the connected account were refused",
        raw_response={"error": "invalid_grant", "error_description": "Token has been revoked"},
    )
