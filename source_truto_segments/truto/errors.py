"""The error table: what each failure means, and one message for each row.

Every message says what failed, for which account, what Truto or the vendor reported, and who does
what now. The statuses and their meanings are those of Truto's API reference, "Errors".
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from http.client import BadStatusLine, UnknownProtocol

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import (
    BackoffStrategy,
    ErrorHandler,
    ErrorResolution,
    ResponseAction,
)
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from typing_extensions import override
from urllib3.exceptions import NameResolutionError

from source_truto_segments.truto.excerpts import excerpt, mask
from source_truto_segments.truto.rate_limiter import parse_retry_after
from source_truto_segments.truto.responses import ErrorBody, Speaker, parse_error
from source_truto_segments.truto.transport import MalformedHeadError, ResponseTooLargeError


class Scope(Enum):
    """What a failure concerns: one account, or the whole sync."""

    ACCOUNT = "account"
    SYNC = "sync"


@dataclass
class Resolution(ErrorResolution):
    """A row of the table: the CDK's resolution, with what to do and what it concerns.

    Attributes:
        response_action: FAIL, RETRY or RATE_LIMITED: whether to send the request again.
        failure_type: Airbyte's type: config_error requires the user to act, transient_error goes
            away by itself, system_error is a fault of Truto or of this connector.
        error_message: What went wrong, as the second half of "… failed: ".
        guidance: Who does what now, in sentences.
        scope: What it concerns.
        of_account: The row to use if other requests with the token still succeed, so that only this
            account fails. None if the connector does not need to find that out.
        retry_seconds: How long to retry the request.
    """

    response_action: ResponseAction = ResponseAction.FAIL
    failure_type: FailureType = FailureType.system_error
    error_message: str = ""
    guidance: str = ""
    scope: Scope = Scope.ACCOUNT
    of_account: "Resolution | None" = None
    retry_seconds: float = 300.0


class UserError(AirbyteTracedException):
    """A failure whose message is a sentence for the user; secrets are masked in it."""

    def __init__(self, message: str, failure_type: FailureType = FailureType.config_error) -> None:
        message = mask(message)
        super().__init__(message=message, internal_message=message, failure_type=failure_type)


class ReadError(UserError):
    """A failure, described by a row of the table.

    Args:
        resolution: The row of the table.
        operation: The first half of the message: "Reading the segments of … x".
        account_id: The account that it concerns; None if none.
        detail: The text after the row's message, such as " (HTTP 400)".
        status: The HTTP status of an error response.
        guidance: Who does what now; by default the row's guidance.

    Attributes:
        summary: The message without the guidance.
    """

    def __init__(
        self,
        resolution: Resolution,
        operation: str,
        account_id: str | None = None,
        detail: str = "",
        status: int | None = None,
        guidance: str | None = None,
    ) -> None:
        self.status = status
        self.guidance = mask(resolution.guidance if guidance is None else guidance)
        self.resolution = resolution
        self.operation = mask(operation)
        self.account_id = account_id
        self.detail = mask(detail)
        self.summary = mask(f"{operation} failed: {resolution.error_message}{detail}")
        super().__init__(f"{self.summary}. {self.guidance}", resolution.failure_type)

    def with_detail(self, text: str) -> "ReadError":
        """Return the same error with a text appended to its detail."""
        return self._with(f"{self.detail}{text}", self.guidance)

    def with_guidance(self, text: str) -> "ReadError":
        """Return the same error with another guidance."""
        return self._with(self.detail, text)

    def _with(self, detail: str, guidance: str) -> "ReadError":
        resolution, operation, account_id = self.resolution, self.operation, self.account_id
        return ReadError(resolution, operation, account_id, detail, self.status, guidance)


_CONFIG = FailureType.config_error
_TRANSIENT = FailureType.transient_error
_SYSTEM = FailureType.system_error

_NEXT_SYNC = "No action is needed now: the next sync tries again."
_IF_IT_PERSISTS = f"{_NEXT_SYNC} If it fails for hours, contact Truto's support."
_RECONNECT = "The account's owner must reconnect it in Truto"
_SEND = "Send this message to Truto's support."
_CHECK_FILTERS = (
    "Check workspace_id, tag_id and remote_query in the source's configuration; if they are "
    "correct, send this message to Truto's support."
)
_CHECK_LIST_FILTERS = (
    "Check the integrations and tenant_ids under additional_accounts in the source's "
    "configuration; if they are correct, send this message to Truto's support."
)
# The query parameters, up to a bracket, that come from the user's settings.
_SETTINGS = {
    "workspace": "workspace_id",
    "tags": "tag_id",
    "remote_query": "remote_query",
    "integration.name": "integrations under additional_accounts",
    "tenant_id": "tenant_ids under additional_accounts",
}
_PROXY_VARIABLES = "HTTPS_PROXY, ALL_PROXY, NO_PROXY"
_WHOEVER_RUNS_THE_NETWORK = (
    "whoever runs the network of the machine that runs the sync must let it reach Truto's API"
)
_CHECK_API_URL = "Check api_url in the source's configuration."


def _rejected(
    message: str,
    guidance: str,
    scope: Scope = Scope.ACCOUNT,
    of_account: Resolution | None = None,
) -> Resolution:
    return Resolution(ResponseAction.FAIL, _CONFIG, message, guidance, scope, of_account)


def _retried(message: str, guidance: str = _IF_IT_PERSISTS) -> Resolution:
    return Resolution(ResponseAction.RETRY, _TRANSIENT, message, guidance)


ACCOUNT_NOT_FOUND = _rejected(
    "Truto has no such account",
    "Check the integrated account ID, and that the API token belongs to the same Truto environment "
    "as the account.",
)
VENDOR_NOT_FOUND = _rejected("the vendor did not find the requested resource", _CHECK_FILTERS)
ACCOUNT_FORBIDDEN = _rejected(
    "Truto denied access to this account, though the API token can read others",
    "Ask Truto's support why, with this message, or remove the account from the source.",
)
# As long as no other account's segments could be read.
MAYBE_FORBIDDEN = _rejected(
    "Truto denied access to this account",
    "If no account can be read, use an API token of this Truto environment that may read its "
    "unified API. Otherwise ask Truto's support why, with this message, or remove the account from "
    "the source.",
)
FORBIDDEN = _rejected(
    "Truto denied access with this API token",
    "Use an API token of this Truto environment that may read its integrated accounts and its "
    "unified API.",
    Scope.SYNC,
    ACCOUNT_FORBIDDEN,
)
OBJECT_FORBIDDEN = _rejected(
    "Truto denied access to the account's object, though the API token may read other data",
    "Use an API token of this Truto environment that may read its integrated accounts, or deselect "
    "the stream integrated_accounts.",
)
ACCOUNT_REDIRECTED = _rejected(
    "the response is a redirect, though those of other accounts are not",
    "Send this message to Truto's support, or remove the account from the source.",
)
REDIRECTED = _rejected(
    "the API URL responded with a redirect; redirects are not followed, to protect the API token",
    f"{_CHECK_API_URL} If it is correct, a proxy or a login page of the network stands in between: "
    f"{_WHOEVER_RUNS_THE_NETWORK}.",
    Scope.SYNC,
    ACCOUNT_REDIRECTED,
)
# Truto's API reference calls its own 503 a block in one place, and a reason to retry in another.
BLOCKED = Resolution(
    ResponseAction.RETRY,
    _CONFIG,
    "Truto has blocked this account",
    "Contact Truto's support with the account's ID.",
    retry_seconds=10.0,
)
UNAVAILABLE = _retried("Truto is unavailable")
GATEWAY_ANSWERED = _retried(
    "a gateway, firewall or proxy answered in Truto's place",
    f"{_NEXT_SYNC} If it persists, {_WHOEVER_RUNS_THE_NETWORK}; if nothing there is in the way, "
    "contact Truto's support.",
)

ERROR_MAPPING: Mapping[tuple[int, Speaker], Resolution] = {
    (400, Speaker.TRUTO): _rejected("Truto rejected the request", _CHECK_FILTERS),
    (400, Speaker.VENDOR): _rejected("the vendor rejected the request", _CHECK_FILTERS),
    (401, Speaker.TRUTO): _rejected(
        "Truto rejected the API token",
        "Create an API token in the Truto environment of the accounts and put it into the source's "
        "API token field.",
        Scope.SYNC,
    ),
    (401, Speaker.VENDOR): _rejected(
        "the vendor rejected the credentials of the connection",
        f"{_RECONNECT}; until then no sync can read it.",
    ),
    (402, Speaker.VENDOR): _rejected(
        "the vendor requires a payment, or a plan that includes its API",
        "The account's owner must renew or upgrade the plan at the vendor; until then no sync can "
        "read it.",
    ),
    (403, Speaker.TRUTO): FORBIDDEN,
    (403, Speaker.VENDOR): _rejected(
        "the vendor denied access with this connection",
        f"{_RECONNECT} and grant the missing permission.",
    ),
    (404, Speaker.TRUTO): ACCOUNT_NOT_FOUND,
    (404, Speaker.VENDOR): VENDOR_NOT_FOUND,
    (405, Speaker.VENDOR): _rejected("the vendor does not allow this request", _CHECK_FILTERS),
    (409, Speaker.VENDOR): _rejected("the vendor reported a conflict", _CHECK_FILTERS),
    (422, Speaker.VENDOR): _rejected("the vendor could not process the request", _CHECK_FILTERS),
    (429, Speaker.TRUTO): Resolution(
        ResponseAction.RATE_LIMITED,
        _TRANSIENT,
        "Truto's rate limit was exceeded",
        f"{_NEXT_SYNC} If it happens often, lower num_workers, or leave more time between the "
        "syncs of all connections with this API token.",
    ),
    (429, Speaker.VENDOR): Resolution(
        ResponseAction.RATE_LIMITED,
        _TRANSIENT,
        "the vendor's rate limit was exceeded",
        f"{_NEXT_SYNC} If it happens often, leave more time between syncs.",
    ),
    (429, Speaker.GATEWAY): Resolution(
        ResponseAction.RATE_LIMITED,
        _TRANSIENT,
        "a gateway, firewall or proxy limits the rate of requests",
        f"{_NEXT_SYNC} If it happens often, lower num_workers.",
    ),
    (500, Speaker.TRUTO): _retried("Truto had an internal error"),
    (500, Speaker.VENDOR): _retried("the vendor had an internal error"),
    (502, Speaker.TRUTO): _retried(
        "Truto received an invalid response from the vendor (bad gateway)"
    ),
    (502, Speaker.VENDOR): _retried("the vendor returned a bad gateway error"),
    (503, Speaker.TRUTO): BLOCKED,
    (503, Speaker.VENDOR): _retried("the vendor is unavailable"),
    (504, Speaker.TRUTO): _retried("the vendor did not respond to Truto in time"),
    (504, Speaker.VENDOR): _retried("the vendor did not respond in time"),
}

WORKSPACE_REQUIRED = _rejected(
    "the vendor requires a workspace",
    "Check workspace_id in the source's configuration; if it is empty, all workspaces are read.",
)
NOT_SUPPORTED = _rejected(
    "Truto does not support this resource for this integration",
    "Remove this account from the source, or ask Truto's support for the resource.",
)
WORKSPACES_INCOMPLETE = Resolution(
    ResponseAction.FAIL,
    _TRANSIENT,
    "the list may be incomplete, and the configured workspace (workspace_id) is not in it",
    f"{_NEXT_SYNC} If it persists, send this message to Truto's support.",
)
CURSOR_REJECTED = Resolution(
    ResponseAction.FAIL,
    _SYSTEM,
    "the cursor of the next page was rejected, also after a restart from the first page",
    "Send this message to Truto's support: the vendor, or Truto, rejects its own cursor.",
)
MALFORMED = _retried("the response is malformed")
TIMED_OUT = _retried("the request timed out")
# As long as no request has had a response.
NEVER_ANSWERED = _retried(
    TIMED_OUT.error_message,
    f"{_NEXT_SYNC} If it persists, a firewall or proxy may drop the connection: "
    f"{_WHOEVER_RUNS_THE_NETWORK}; if nothing there is in the way, contact Truto's support.",
)
RESPONSE_TOO_LARGE = _rejected(
    "the response is too large",
    "Lower page_size in the source's configuration, or deselect the column remote_data; if that "
    "does not help, send this message to Truto's support.",
)
TLS_ERROR = _retried(
    "no secure connection could be established",
    "Check that the network's proxies allow this address, and that the machine that runs the sync "
    "trusts their certificates.",
)
NAME_ERROR = _retried(
    "the name of the host could not be resolved",
    "Check the name service (DNS) of the machine that runs the sync; if it works, the next sync "
    "tries again.",
)
PROXY_ERROR = _retried(
    "the proxy of this machine could not be reached, or refused the connection",
    f"Check the proxy settings of the machine that runs the sync ({_PROXY_VARIABLES}), and that "
    "the proxy allows this address.",
)
PROXY_NAME_ERROR = _retried(
    "the name of the proxy of this machine could not be resolved",
    f"Check the proxy settings of the machine that runs the sync ({_PROXY_VARIABLES}); if they are "
    "correct, check its name service (DNS).",
)
PROXY_LOGIN_REQUIRED = _rejected(
    "the proxy of this machine requires a login, or rejected the one that is set",
    "Put the login into the proxy settings of the machine that runs the sync "
    f"({_PROXY_VARIABLES}), or correct it there; whoever runs the proxy knows it.",
    Scope.SYNC,
)
CONNECTION_ERROR = _retried(
    "the connection could not be established or was lost",
    "Check that the machine that runs the sync can reach this address; if it can, the next sync "
    "tries again.",
)
ACCOUNT_LIST_NOT_FOUND = _rejected(
    "Truto has no list of integrated accounts at this URL", _CHECK_API_URL, Scope.SYNC
)
ACCOUNT_LIST_REJECTED = _rejected(
    "Truto rejected the request for the list",
    _CHECK_LIST_FILTERS,
    Scope.SYNC,
)
PAGINATION_LOOP = Resolution(
    ResponseAction.FAIL,
    _SYSTEM,
    "the pages repeat: pagination loop detected",
    "All records before the repetition were read. Send this message to Truto's support.",
)
UNEXPECTED = Resolution(
    ResponseAction.FAIL,
    _SYSTEM,
    "the connector failed unexpectedly",
    "Report this message to the connector's maintainers.",
)
NO_THREAD = Resolution(
    ResponseAction.FAIL,
    _TRANSIENT,
    "this machine has no further thread",
    "Raise the limit of processes, or the memory, of the container that runs the sync.",
    Scope.SYNC,
)
NOT_ALL_READ = Resolution(
    ResponseAction.FAIL,
    _SYSTEM,
    "the sync ended before all accounts were read, and no failure says why",
    "Report this message to the connector's maintainers; the next sync reads the accounts again.",
    Scope.SYNC,
)
MAX_WAIT_EXCEEDED = Resolution(
    ResponseAction.FAIL,
    _TRANSIENT,
    "a rate limit requires a longer wait than is allowed",
    "No action is needed now: a later sync tries again. If it happens often, leave more time "
    "between syncs.",
)

# Request Timeout, Locked, Too Early, and the unofficial Client Closed Request.
_TEMPORARY = (408, 423, 425, 499)

# Some statuses have another meaning for the list of accounts than for an account.
_ACCOUNT_LIST_MAPPING: Mapping[int, Resolution] = {
    400: ACCOUNT_LIST_REJECTED,
    422: ACCOUNT_LIST_REJECTED,
    404: ACCOUNT_LIST_NOT_FOUND,
    503: UNAVAILABLE,
}


def interpret_response(
    status: int,
    body: ErrorBody,
    *,
    sent_cursor: bool,
    of_account: bool = True,
) -> Resolution:
    """Return the row for a response that is not a page.

    Args:
        status: The HTTP status.
        body: The content of the response.
        sent_cursor: Whether the request carried a cursor.
        of_account: Whether it concerned an account, and not the environment's list of them.
    """
    if 300 <= status < 400:  # noqa: PLR2004 - the redirects
        return REDIRECTED
    if not of_account and body.speaker is Speaker.TRUTO and status in _ACCOUNT_LIST_MAPPING:
        return _ACCOUNT_LIST_MAPPING[status]
    if status == requests.codes.bad_request and body.speaker is not Speaker.GATEWAY:
        resolution = _interpret_bad_request(body, sent_cursor=sent_cursor)
        if resolution is not None:
            return resolution
    return ERROR_MAPPING.get((status, body.speaker)) or _undocumented(status, body.speaker)


def _interpret_bad_request(body: ErrorBody, *, sent_cursor: bool) -> Resolution | None:
    """Return the row for a 400 if its body or request shows the cause; otherwise None."""
    if any("workspace" in name for name in body.missing_parameters):
        return WORKSPACE_REQUIRED
    if body.speaker is Speaker.TRUTO and "not support" in body.reason.lower():
        return NOT_SUPPORTED
    return CURSOR_REJECTED if sent_cursor else None


def _undocumented(status: int, speaker: Speaker) -> Resolution:
    """Return the row for a status that Truto's reference does not list, by its class."""
    if speaker is Speaker.GATEWAY:
        return GATEWAY_ANSWERED
    if status >= requests.codes.server_error:
        return _retried(f"{speaker.value} returned an undocumented server error")
    if status in _TEMPORARY:
        return _retried(f"{speaker.value} could not respond for the moment")
    if status < 300:  # noqa: PLR2004 - a success without the documented body
        return MALFORMED
    return _rejected(f"{speaker.value} rejected the request unexpectedly", _CHECK_FILTERS)


def interpret_exception(error: requests.RequestException) -> Resolution:
    """Return the row for a request that has no complete response."""
    causes = [*_causes(error)]
    is_proxy = isinstance(error, requests.exceptions.ProxyError)
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return PROXY_NAME_ERROR if is_proxy else NAME_ERROR
    if is_proxy and _LOGIN_REQUIRED in str(causes[-1]):
        return PROXY_LOGIN_REQUIRED
    if any(isinstance(cause, MalformedHeadError) for cause in causes):
        return MALFORMED
    return next(row for kind, row in _EXCEPTION_MAPPING if isinstance(error, kind))


# How http.client reports a proxy's response to CONNECT.
_LOGIN_REQUIRED = f"Tunnel connection failed: {requests.codes.proxy_authentication_required:d}"

# The order matters: a ConnectTimeout is both a Timeout and a ConnectionError.
_EXCEPTION_MAPPING: tuple[tuple[type[requests.RequestException], Resolution], ...] = (
    (ResponseTooLargeError, RESPONSE_TOO_LARGE),
    (requests.exceptions.SSLError, TLS_ERROR),
    (requests.exceptions.ProxyError, PROXY_ERROR),
    (requests.Timeout, TIMED_OUT),
    # The configuration's address was valid, so this comes from Airbyte Cloud's filter of requests,
    # which raises it if it cannot resolve the name.
    (requests.exceptions.InvalidURL, NAME_ERROR),
    (requests.exceptions.InvalidHeader, MALFORMED),
    (requests.exceptions.ContentDecodingError, MALFORMED),
    (requests.RequestException, CONNECTION_ERROR),
)


def guidance_for(resolution: Resolution, params: Iterable[str]) -> str:
    """Return the guidance of a row; it only names settings that the request used.

    Args:
        resolution: The row.
        params: The names of the query parameters.
    """
    if resolution.guidance not in (_CHECK_FILTERS, _CHECK_LIST_FILTERS):
        return resolution.guidance
    sent = {name.partition("[")[0] for name in params}
    *others, last = [setting for name, setting in _SETTINGS.items() if name in sent] or [""]
    if not last:
        return _SEND
    named, are = (f"{', '.join(others)} and {last}", "they are") if others else (last, "it is")
    support = f"{_SEND[0].lower()}{_SEND[1:]}"
    return f"Check {named} in the source's configuration; if {are} correct, {support}"


def through_proxy(row: Resolution, variable: str, host: str) -> Resolution:
    """Return a row with guidance for a request that went through a proxy.

    Args:
        row: The row.
        variable: The environment variable that sets the proxy.
        host: The host that the request was for.
    """
    guidance = row.guidance.replace(_PROXY_VARIABLES, variable).replace("this address", host)
    return row if guidance == row.guidance else replace(row, guidance=guidance)


def for_check(message: str) -> str:
    """Return a message with guidance for testing the connection instead of for a sync."""
    return _without_sync(message, "test the connection again")


def for_discover(error: ReadError) -> ReadError:
    """Return an error with guidance for fetching the schema instead of for a sync."""
    guidance = error.guidance
    if error.resolution is RESPONSE_TOO_LARGE:
        guidance = _SEND
    elif error.resolution.response_action is ResponseAction.RATE_LIMITED:
        guidance = _NEXT_SYNC
    guidance = guidance.replace(
        "remove the account from the source", "name another account in integrated_account_id"
    )
    return error.with_guidance(_without_sync(guidance, "fetch the schema again"))


def _without_sync(text: str, again: str) -> str:
    """Replace the advice to wait for the next sync with what a person can do now."""
    later = f"{again.capitalize()} in some minutes."
    text = text.replace(_NEXT_SYNC, later).replace(MAX_WAIT_EXCEEDED.guidance, later)
    return text.replace("the next sync tries again.", f"{again}.")


def unexpected_error(operation: str, account_id: str | None, error: Exception) -> ReadError:
    """Return a defect of the connector as a ReadError."""
    detail = f" ({type(error).__name__}: {excerpt(str(error))})"
    return ReadError(UNEXPECTED, operation, account_id, detail)


def response_detail(status: int, body: ErrorBody, redirected_to: str | None = None) -> str:
    """Return the detail of an error response: its status, its reason and the missing scopes.

    Args:
        status: The HTTP status.
        body: The content of the response.
        redirected_to: The host to which it redirects.
    """
    parts = [f"HTTP {status}"]
    if redirected_to:
        parts.append(f"redirected to {excerpt(redirected_to)}")
    if body.reason:
        parts.append(f'{body.speaker.value} reported: "{body.reason}"')
    if body.missing_scopes:
        parts.append(f"missing scopes: {excerpt(', '.join(body.missing_scopes))}")
    return f" ({'; '.join(parts)})"


def root_cause(error: Exception) -> str:
    """Return the text of the innermost cause of a failed request, or the name of its type.

    Never quote a line of the response itself, as it can be part of a body.
    """
    *_, innermost = _causes(error)
    if isinstance(innermost, _QUOTING) and not isinstance(innermost, ConnectionError):
        return "the response is not valid HTTP"
    return excerpt(str(innermost)) or type(innermost).__name__


# http.client and urllib3 raise these with a line of the response: a status, a version or a chunk's
# length.
_QUOTING = (BadStatusLine, UnknownProtocol, ValueError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, from the outermost to the innermost."""
    for _ in range(_MAX_CAUSES):
        yield error
        context = None if error.__suppress_context__ else error.__context__
        inner = getattr(error, "reason", None) or error.__cause__ or context
        if not isinstance(inner, BaseException):
            return
        error = inner


# requests wraps urllib3's error, which wraps the operating system's; a longer chain is a cycle.
_MAX_CAUSES = 8


class TableErrorHandler(ErrorHandler):
    """Applies the table to a read with the CDK's own `HttpStream.read_records`."""

    max_retries = 5
    max_time = 600

    @override
    def interpret_response(
        self, response_or_exception: requests.Response | Exception | None
    ) -> ErrorResolution:
        if isinstance(response_or_exception, requests.Response):
            return _resolve(response_or_exception)
        if isinstance(response_or_exception, requests.RequestException):
            row = interpret_exception(response_or_exception)
            return _with_sentence(row, f" ({root_cause(response_or_exception)})")
        return _with_sentence(UNEXPECTED, f" ({type(response_or_exception).__name__})")


class RetryAfterBackoff(BackoffStrategy):
    """Waits as long as a response asks, in a read with the CDK."""

    @override
    def backoff_time(
        self,
        response_or_exception: requests.Response | requests.RequestException | None,
        attempt_count: int,
    ) -> float | None:
        if not isinstance(response_or_exception, requests.Response):
            return None
        is_limit = response_or_exception.status_code == requests.codes.too_many_requests
        return parse_retry_after(response_or_exception.headers, is_limit=is_limit)


def _resolve(response: requests.Response) -> ErrorResolution:
    if response.ok and not response.is_redirect:
        return ErrorResolution(ResponseAction.SUCCESS)
    body, url = parse_error(response.content), str(response.request.url)
    row = interpret_response(
        response.status_code,
        body,
        sent_cursor="next_cursor=" in url,
        of_account="integrated_account_id=" in url,
    )
    # The host is not known here, so do not quote a response that does not have Truto's form.
    shown = ErrorBody() if body.speaker is Speaker.GATEWAY else body
    return _with_sentence(row, response_detail(response.status_code, shown))


def _with_sentence(row: Resolution, detail: str) -> Resolution:
    return replace(row, error_message=mask(f"{row.error_message}{detail}. {row.guidance}"))
