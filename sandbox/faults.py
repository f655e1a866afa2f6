"""Faults: what can go wrong, and to which requests it happens.

A list of faults reads like a script: a request meets the first fault that is due, and the faults
behind that one do not see the request at all.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from sandbox import answers
from sandbox.answers import Answer
from sandbox.limits import RetryAfter, retry_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Unpack

    from sandbox.request import Kind, Request

# One lock for all, so that a fault stays plain data that can be copied.
_TAKING = threading.Lock()


@dataclass(frozen=True)
class Delivery:
    """How an answer travels.

    Attributes:
        delay: Seconds before the answer, besides the latency.
        seconds_per_byte: Pause after each byte of the body; none sends it in one piece.
        reset_after: Bytes of the body after which the connection is reset (RST). At 0 not even
            the headers are sent.
        cut_after: Bytes of the body after which the connection is closed in good order, although
            `Content-Length` has announced the whole of it.
    """

    delay: float = 0.0
    seconds_per_byte: float | None = None
    reset_after: int | None = None
    cut_after: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer is delivered in the end."""
        return self.reset_after is None and self.cut_after is None


@dataclass
class Fault:
    """Something that goes wrong, for the requests that it is meant for.

    Attributes:
        answer: Makes the answer given in place of the normal one; none leaves that as it is.
        delivery: How the answer travels.
        account_status: The status that the account is left with, and keeps.
        times: How many requests it happens to; none for all of them.
        after: How many of the requests it is meant for pass first.
        kind: Only requests of this kind.
        when: Only requests that this is true of. Called in the server's thread.
    """

    answer: Callable[[], Answer] | None = None
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
        with _TAKING:
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
    """Which requests a fault is meant for; see `Fault`."""

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
    answer = answers.truto_error(status, message, insight=insight, details=details, headers=headers)
    return Fault(lambda: answer, **match)


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
    answer = answers.vendor_error(
        status, message, raw_response=raw_response, insight=insight, headers=headers
    )
    return Fault(lambda: answer, **match)


def body(
    content: str | bytes,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    **match: Unpack[Match],
) -> Fault:
    """Any body as it is: HTML, no JSON, JSON that is cut short, another envelope."""
    raw = content.encode() if isinstance(content, str) else content
    answer = Answer(status, raw, headers or {}, content_type)
    return Fault(lambda: answer, **match)


def redirect(location: str, status: int = 302, **match: Unpack[Match]) -> Fault:
    """A redirect to another address."""
    answer = Answer(status, b"", {"Location": location}, "text/plain", at_once=True)
    return Fault(lambda: answer, **match)


def reset(after_bytes: int = 0, **match: Unpack[Match]) -> Fault:
    """The normal answer, until the connection is reset after so many bytes of the body.

    At 0 the connection is reset before any byte of the answer, its headers included.
    """
    return Fault(delivery=Delivery(reset_after=after_bytes), **match)


def cut(after_bytes: int, **match: Unpack[Match]) -> Fault:
    """The normal answer, until the connection is closed after so many bytes of the body."""
    return Fault(delivery=Delivery(cut_after=after_bytes), **match)


def hang(seconds: float = 3_600.0, **match: Unpack[Match]) -> Fault:
    """No answer for so long; given up when the sandbox stops."""
    return Fault(delivery=Delivery(delay=seconds), **match)


def delay(seconds: float, **match: Unpack[Match]) -> Fault:
    """The normal answer, so much later."""
    return Fault(delivery=Delivery(delay=seconds), **match)


def drip(seconds_per_byte: float = 0.1, **match: Unpack[Match]) -> Fault:
    """The normal answer, its body byte by byte."""
    return Fault(delivery=Delivery(seconds_per_byte=seconds_per_byte), **match)


# --- the rows of the error table: Truto's own -----------------------------------------------------


def bad_request(**match: Unpack[Match]) -> Fault:
    """Truto's 400: the request is wrong."""
    return truto_error(400, "The request could not be understood", **match)


def missing_parameters(*names: str, **match: Unpack[Match]) -> Fault:
    """Truto's 400: the vendor needs parameters that the request does not have."""
    return Fault(lambda: missing_parameters_answer(names or ("workspace[id]",)), **match)


def resource_not_supported(**match: Unpack[Match]) -> Fault:
    """Truto's 400: the integration does not have this resource."""
    return truto_error(400, "Resource is not supported by this integration", **match)


def token_refused(**match: Unpack[Match]) -> Fault:
    """Truto's 401: the API token is missing, wrong or expired."""
    return truto_error(401, "Unauthorized", **match)


def token_forbidden(**match: Unpack[Match]) -> Fault:
    """Truto's 403: the API token may not do this."""
    return truto_error(403, "Forbidden resource", **match)


def account_not_found(**match: Unpack[Match]) -> Fault:
    """Truto's 404: the token's environment has no such account."""
    return truto_error(404, "Integrated account not found", **match)


def truto_rate_limited(
    seconds: float = 10.0, form: RetryAfter = "seconds", **match: Unpack[Match]
) -> Fault:
    """Truto's 429."""
    return Fault(lambda: truto_rate_limit_answer(retry_headers(form, seconds)), **match)


def truto_failed(status: int = 500, **match: Unpack[Match]) -> Fault:
    """Truto's 500."""
    return truto_error(status, "Internal server error", **match)


def bad_gateway(**match: Unpack[Match]) -> Fault:
    """Truto's 502: no clean answer from the vendor."""
    return truto_error(502, "The vendor gave no valid answer", **match)


def gateway_timeout(**match: Unpack[Match]) -> Fault:
    """Truto's 504: no answer from the vendor in time."""
    return truto_error(504, "The vendor did not answer in time", **match)


def account_blocked(**match: Unpack[Match]) -> Fault:
    """Truto's 503: the account is blocked, and only Truto's support can help."""
    message = "This account has been blocked. Please contact support@truto.one"
    return truto_error(503, message, **match)


# --- the rows of the error table: the vendor's ----------------------------------------------------


def stale_cursor(**match: Unpack[Match]) -> Fault:
    """The vendor's 400 for a cursor it does not take; by default only where one is sent."""
    match.setdefault("when", lambda request: request.param("next_cursor") is not None)
    return Fault(stale_cursor_answer, **match)


def credentials_refused(**match: Unpack[Match]) -> Fault:
    """The vendor's 401: the account becomes `needs_reauth`, and so every later call fails too."""
    return Fault(credentials_refused_answer, account_status="needs_reauth", **match)


def scopes_missing(*scopes: str, **match: Unpack[Match]) -> Fault:
    """The vendor's 403: the connection lacks OAuth scopes."""
    missing = list(scopes or ("segments:read",))
    return vendor_error(
        403,
        "The connection is not allowed to do this",
        raw_response={"errors": [{"status": 403, "code": "permission_denied"}]},
        insight=answers.insight(
            "forbidden_error",
            "The connected account does not have the required scopes.",
            {"missing_scopes": missing},
        ),
        **match,
    )


def vendor_not_found(**match: Unpack[Match]) -> Fault:
    """The vendor's 404."""
    return vendor_error(404, raw_response={"errors": [{"detail": "Not found"}]}, **match)


def vendor_refused(status: int = 422, **match: Unpack[Match]) -> Fault:
    """The vendor's 405, 409 or 422, with an empty message: the reason is in `raw_response`."""
    reason = {"errors": [{"status": status, "detail": "The request cannot be processed"}]}
    return vendor_error(status, raw_response=reason, **match)


def vendor_rate_limited(
    seconds: float = 1.0, form: RetryAfter = "seconds", **match: Unpack[Match]
) -> Fault:
    """The vendor's 429, in one of the forms it can say how long to wait."""
    return Fault(lambda: vendor_rate_limit_answer(retry_headers(form, seconds)), **match)


def vendor_failed(status: int = 500, **match: Unpack[Match]) -> Fault:
    """The vendor's 500; 502 and 504 look the same."""
    return vendor_error(status, raw_response="Internal Server Error", **match)


def vendor_unavailable(**match: Unpack[Match]) -> Fault:
    """The vendor's 503."""
    return vendor_error(503, raw_response="Service Unavailable", **match)


# --- answers that the API gives by itself as well -------------------------------------------------


def missing_parameters_answer(names: Iterable[str]) -> Answer:
    """Truto's 400 with the parameters that the request would have needed."""
    missing = list(names)
    return answers.truto_error(
        400,
        f"Missing required query parameters: {', '.join(missing)}",
        insight=answers.insight(
            "missing_required_query_parameters",
            "The following query parameters are required and missing from the request.",
            missing,
        ),
    )


def truto_rate_limit_answer(headers: Mapping[str, str]) -> Answer:
    """Truto's 429."""
    return answers.truto_error(429, "Too many requests, please try again later", headers=headers)


def vendor_rate_limit_answer(headers: Mapping[str, str]) -> Answer:
    """The vendor's 429."""
    return answers.vendor_error(
        429,
        "Request was throttled",
        raw_response={"errors": [{"status": 429, "code": "throttled"}]},
        insight=answers.insight(
            "rate_limit_error", "The vendor's rate limit has been reached.", None
        ),
        headers=headers,
    )


def stale_cursor_answer() -> Answer:
    """The vendor's 400 for a cursor that it does not take, or no longer."""
    return answers.vendor_error(
        400,
        "Invalid cursor",
        raw_response={
            "errors": [
                {
                    "status": 400,
                    "code": "invalid",
                    "detail": "The cursor is invalid or has expired.",
                    "source": {"parameter": "page[cursor]"},
                }
            ]
        },
    )


def credentials_refused_answer() -> Answer:
    """The vendor's 401 for credentials that it no longer takes."""
    return answers.vendor_error(
        401,
        "The credentials of the connected account were refused",
        raw_response={"error": "invalid_grant", "error_description": "Token has been revoked"},
    )
