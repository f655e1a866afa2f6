"""The error table: what each failure means, and one message for each row.

Every message says what failed, for which account, what Truto or the vendor reported, and who does
what now. The statuses and their meanings are those of Truto's API reference, "Errors".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import (
    BackoffStrategy,
    ErrorHandler,
    ErrorResolution,
    ResponseAction,
)
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from typing_extensions import override
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from source_truto_segments.truto.rate_limiter import parse_retry_after
from source_truto_segments.truto.responses import ErrorBody, Origin, excerpt, parse_error
from source_truto_segments.truto.transport import ResponseTooLargeError


class Scope(Enum):
    """What a failure concerns: one account, or the whole sync."""

    ACCOUNT = "account"
    SYNC = "sync"


@dataclass
class Resolution(ErrorResolution):
    """A row of the table: the CDK's resolution, with what to do and what it concerns.

    Attributes:
        response_action: FAIL, RETRY or RATE_LIMITED: whether the request is sent again.
        failure_type: Airbyte's type: config_error requires the user to act, transient_error goes
            away by itself, system_error is a fault of Truto or of this connector.
        error_message: What went wrong, as the second half of "… failed: ".
        guidance: Who does what now, in sentences.
        scope: What it concerns.
    """

    response_action: ResponseAction = ResponseAction.FAIL
    failure_type: FailureType = FailureType.system_error
    error_message: str = ""
    guidance: str = ""
    scope: Scope = Scope.ACCOUNT


class ReadError(AirbyteTracedException):
    """A failure with the message that the user reads; secrets are masked in every part of it.

    Args:
        resolution: The row of the table.
        operation: The first half of the message: "Reading the segments of … x".
        account_id: The account that it concerns; None if none.
        detail: What follows the row's message, such as " (HTTP 400)".

    Attributes:
        summary: The message without the guidance.
    """

    def __init__(
        self,
        resolution: Resolution,
        operation: str,
        account_id: str | None = None,
        detail: str = "",
    ) -> None:
        self.resolution = resolution
        self.operation = filter_secrets(operation)
        self.account_id = account_id
        self.detail = filter_secrets(detail)
        self.summary = filter_secrets(f"{operation} failed: {resolution.error_message}{detail}")
        message = f"{self.summary}. {filter_secrets(resolution.guidance)}"
        super().__init__(
            message=message, internal_message=message, failure_type=resolution.failure_type
        )

    def with_detail(self, text: str) -> "ReadError":
        """Return the same error with a text appended to its detail."""
        return ReadError(self.resolution, self.operation, self.account_id, f"{self.detail}{text}")


_CONFIG = FailureType.config_error
_TRANSIENT = FailureType.transient_error
_SYSTEM = FailureType.system_error

_NEXT_SYNC = "No action is needed now: the next sync tries again."
_IF_IT_PERSISTS = f"{_NEXT_SYNC} If it fails for hours, contact Truto's support."
_RECONNECT = "The account's owner must reconnect it in Truto"
_CHECK_FILTERS = (
    "Check workspace_id, tag_id, page_size and remote_query in the source's configuration; if they "
    "are correct, send this message to Truto's support."
)
_CHECK_API_URL = "Check api_url in the source's configuration."


def _rejected(message: str, guidance: str, scope: Scope = Scope.ACCOUNT) -> Resolution:
    return Resolution(ResponseAction.FAIL, _CONFIG, message, guidance, scope)


def _retried(message: str, guidance: str = _IF_IT_PERSISTS) -> Resolution:
    return Resolution(ResponseAction.RETRY, _TRANSIENT, message, guidance)


ACCOUNT_NOT_FOUND = _rejected(
    "Truto has no such account",
    "Check the integrated account ID, and that the API token belongs to the same Truto environment "
    "as the account.",
)
VENDOR_NOT_FOUND = _rejected("the vendor did not find the requested resource", _CHECK_FILTERS)

ERROR_MAPPING: Mapping[tuple[int, Origin], Resolution] = {
    (400, Origin.TRUTO): _rejected("Truto rejected the request", _CHECK_FILTERS),
    (400, Origin.VENDOR): _rejected("the vendor rejected the request", _CHECK_FILTERS),
    (401, Origin.TRUTO): _rejected(
        "Truto rejected the API token",
        "Create an API token in the Truto environment of the accounts and put it into the source's "
        "API token field.",
        Scope.SYNC,
    ),
    (401, Origin.VENDOR): _rejected(
        "the vendor rejected the credentials of the connection",
        f"{_RECONNECT}; until then no sync can read it.",
    ),
    (403, Origin.TRUTO): _rejected(
        "Truto denied access with this API token",
        "Use an API token of this Truto environment that may read its integrated accounts and its "
        "unified API.",
        Scope.SYNC,
    ),
    (403, Origin.VENDOR): _rejected(
        "the vendor denied access with this connection",
        f"{_RECONNECT} and grant the missing permission.",
    ),
    (404, Origin.TRUTO): ACCOUNT_NOT_FOUND,
    (404, Origin.VENDOR): VENDOR_NOT_FOUND,
    (405, Origin.VENDOR): _rejected("the vendor does not allow this request", _CHECK_FILTERS),
    (409, Origin.VENDOR): _rejected("the vendor reported a conflict", _CHECK_FILTERS),
    (422, Origin.VENDOR): _rejected("the vendor could not process the request", _CHECK_FILTERS),
    (429, Origin.TRUTO): Resolution(
        ResponseAction.RATE_LIMITED,
        _TRANSIENT,
        "Truto's rate limit was exceeded",
        f"{_NEXT_SYNC} If it happens often, lower num_workers, or leave more time between the "
        "syncs of all connections with this API token.",
    ),
    (429, Origin.VENDOR): Resolution(
        ResponseAction.RATE_LIMITED,
        _TRANSIENT,
        "the vendor's rate limit was exceeded",
        f"{_NEXT_SYNC} If it happens often, leave more time between syncs.",
    ),
    (500, Origin.TRUTO): _retried("Truto had an internal error"),
    (500, Origin.VENDOR): _retried("the vendor had an internal error"),
    (502, Origin.TRUTO): _retried(
        "Truto received an invalid response from the vendor (bad gateway)"
    ),
    (502, Origin.VENDOR): _retried("the vendor returned a bad gateway error"),
    (503, Origin.TRUTO): _rejected(
        "Truto has blocked this account", "Contact Truto's support with the account's ID."
    ),
    (503, Origin.VENDOR): _retried("the vendor is unavailable"),
    (504, Origin.TRUTO): _retried("the vendor did not respond to Truto in time"),
    (504, Origin.VENDOR): _retried("the vendor did not respond in time"),
}

WORKSPACE_REQUIRED = _rejected(
    "the vendor requires a workspace",
    "Check workspace_id in the source's configuration; if it is empty, all workspaces are read.",
)
NOT_SUPPORTED = _rejected(
    "Truto does not support this resource for this integration",
    "Remove this account from the source, or ask Truto's support for the resource.",
)
PAGE_SIZE_TOO_LARGE = _rejected(
    "the vendor rejected page_size as too large",
    "Lower page_size in the source's configuration, or leave it empty.",
)
CURSOR_REJECTED = Resolution(
    ResponseAction.FAIL,
    _TRANSIENT,
    "the cursor of the next page was rejected, probably because the cursor has expired",
    "No action is needed now: the next sync reads this account again from its first page.",
)
REDIRECTED = _rejected(
    "the API URL responded with a redirect; redirects are not followed, to protect the API token",
    _CHECK_API_URL,
    Scope.SYNC,
)
MALFORMED = _retried("the response is malformed")
TIMED_OUT = _retried("the request timed out")
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
CONNECTION_ERROR = _retried(
    "the connection could not be established or was lost",
    "Check that the machine that runs the sync can reach this address; if it can, the next sync "
    "tries again.",
)
INVALID_URL = _rejected(
    "the API URL or a proxy's URL is not valid",
    "Check api_url in the source's configuration, and the proxy settings of the machine.",
    Scope.SYNC,
)
ACCOUNT_LIST_NOT_FOUND = _rejected(
    "Truto has no list of integrated accounts at this URL", _CHECK_API_URL, Scope.SYNC
)
ACCOUNT_LIST_REJECTED = _rejected(
    "Truto rejected the request for the list",
    "Check the integrations and tenant_ids under additional_accounts in the source's "
    "configuration; if they are correct, send this message to Truto's support.",
    Scope.SYNC,
)
ACCOUNT_LIST_UNAVAILABLE = _retried("Truto is unavailable")
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

# For the list of accounts, some statuses mean something else than for an account.
_ACCOUNT_LIST_MAPPING: Mapping[int, Resolution] = {
    400: ACCOUNT_LIST_REJECTED,
    422: ACCOUNT_LIST_REJECTED,
    404: ACCOUNT_LIST_NOT_FOUND,
    503: ACCOUNT_LIST_UNAVAILABLE,
}

# The vendors' names of the page size, and how they say that it is too large: "Page size must be an
# integer between 1 and 10", "limit exceeds max value", "must be less than or equal to 100".
_PAGE_SIZE = re.compile(
    r"(?<!rate[ _-])(?<!request[ _-])\blimit\b|\bpage[ _-]?size\b|\bpage\[size\]|\bper[ _-]?page\b",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"too (?:large|big|high)|\bmax(?:imum)?\b|\bexceeds?\b|\bbetween\b|\bat most\b|out of range"
    r"|(?:less|lower|smaller) than|not be (?:greater|more|larger|higher)",
    re.IGNORECASE,
)


def interpret_response(
    status: int,
    body: ErrorBody,
    *,
    sent_cursor: bool,
    sent_limit: bool = False,
    of_account: bool = True,
) -> Resolution:
    """Return the row for a response that is not a page.

    Args:
        status: The HTTP status.
        body: The content of the response.
        sent_cursor: Whether the request carried a cursor.
        sent_limit: Whether the request carried a page size.
        of_account: Whether it concerned an account, and not the environment's list of them.
    """
    if not of_account and status in _ACCOUNT_LIST_MAPPING:
        return _ACCOUNT_LIST_MAPPING[status]
    if 300 <= status < 400:  # noqa: PLR2004 - the redirects
        return REDIRECTED
    if status == requests.codes.bad_request:
        resolution = _interpret_bad_request(body, sent_cursor=sent_cursor, sent_limit=sent_limit)
        if resolution is not None:
            return resolution
    return ERROR_MAPPING.get((status, body.origin)) or _undocumented(status, body.origin)


def _interpret_bad_request(
    body: ErrorBody, *, sent_cursor: bool, sent_limit: bool
) -> Resolution | None:
    """Return the row for a 400 whose cause its content or request shows; None for any other."""
    if any("workspace" in name for name in body.missing_parameters):
        return WORKSPACE_REQUIRED
    if body.origin is Origin.TRUTO and "not support" in body.reason.lower():
        return NOT_SUPPORTED
    if sent_limit and body.origin is Origin.VENDOR and _is_page_size_too_large(body.reason):
        return PAGE_SIZE_TOO_LARGE
    return CURSOR_REJECTED if sent_cursor else None


def _is_page_size_too_large(reason: str) -> bool:
    return bool(_PAGE_SIZE.search(reason) and _TOO_LARGE.search(reason))


def _undocumented(status: int, origin: Origin) -> Resolution:
    """Return the row for a status that Truto's reference does not list, by its class."""
    if status >= requests.codes.server_error:
        return _retried(f"{origin.value} returned an undocumented server error")
    if status < 300:  # noqa: PLR2004 - a success without the documented body
        return MALFORMED
    return _rejected(f"{origin.value} rejected the request unexpectedly", _CHECK_FILTERS)


def interpret_exception(error: requests.RequestException) -> Resolution:
    """Return the row for a request without a complete response."""
    for kind, resolution in _EXCEPTION_MAPPING:
        if isinstance(error, kind):
            return resolution
    return CONNECTION_ERROR


# The order matters: a ConnectTimeout is both a Timeout and a ConnectionError.
_EXCEPTION_MAPPING: tuple[tuple[type[requests.RequestException], Resolution], ...] = (
    (ResponseTooLargeError, RESPONSE_TOO_LARGE),
    (requests.exceptions.SSLError, TLS_ERROR),
    (requests.Timeout, TIMED_OUT),
    (requests.exceptions.InvalidURL, INVALID_URL),
    (requests.exceptions.InvalidSchema, INVALID_URL),
    (requests.exceptions.MissingSchema, INVALID_URL),
    (requests.exceptions.InvalidHeader, INVALID_URL),
    (requests.exceptions.ContentDecodingError, MALFORMED),
)


def unexpected_error(operation: str, account_id: str | None, error: Exception) -> ReadError:
    """Return a defect of the connector as a failure like the others."""
    detail = f" ({type(error).__name__}: {excerpt(str(error))})"
    return ReadError(UNEXPECTED, operation, account_id, detail)


def response_detail(status: int, body: ErrorBody) -> str:
    """Return the detail of an error response: its status, its reason and the missing scopes."""
    parts = [f"HTTP {status}"]
    if body.reason:
        parts.append(f'{body.origin.value} reported: "{body.reason}"')
    if body.missing_scopes:
        parts.append(f"missing scopes: {excerpt(', '.join(body.missing_scopes))}")
    return f" ({'; '.join(parts)})"


def root_cause(error: Exception) -> str:
    """Return the text of the innermost cause of a failed request, or the name of its type."""
    *_, innermost = _causes(error)
    return excerpt(str(innermost)) or type(innermost).__name__


def is_unreachable(error: Exception) -> bool:
    """Return whether no connection was made at all, so that no account can be the cause."""
    return any(isinstance(cause, _NEVER_CONNECTED) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, from the outermost to the innermost."""
    for _ in range(_MAX_CAUSES):
        yield error
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            return
        error = inner


# requests wraps urllib3 wraps the operating system's error; a longer chain is a cycle.
_MAX_CAUSES = 8
_NEVER_CONNECTED = (NewConnectionError, ConnectTimeoutError)


class TableErrorHandler(ErrorHandler):
    """Applies the table to a read through the CDK's own `HttpStream.read_records`."""

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
    """Waits as long as a response asks, in a read through the CDK."""

    @override
    def backoff_time(
        self,
        response_or_exception: requests.Response | requests.RequestException | None,
        attempt_count: int,
    ) -> float | None:
        if not isinstance(response_or_exception, requests.Response):
            return None
        return parse_retry_after(response_or_exception.headers)


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
    return _with_sentence(row, response_detail(response.status_code, body))


def _with_sentence(row: Resolution, detail: str) -> Resolution:
    return replace(
        row, error_message=filter_secrets(f"{row.error_message}{detail}. {row.guidance}")
    )
