"""The error table: which row a failure has, and what its message is."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any

import pytest
import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction
from urllib3.exceptions import MaxRetryError, NameResolutionError

from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import (
    ERROR_MAPPING,
    ReadError,
    Resolution,
    RetryAfterBackoff,
    Scope,
    TableErrorHandler,
    for_discover,
    guidance_for,
    interpret_exception,
    interpret_response,
    response_detail,
    root_cause,
    unexpected_error,
)
from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH, SECRETS
from source_truto_segments.truto.responses import ErrorBody, Speaker

TRUTO, VENDOR = ErrorBody(Speaker.TRUTO), ErrorBody(Speaker.VENDOR)
GATEWAY = ErrorBody(Speaker.GATEWAY)
CONFIG, TRANSIENT = FailureType.config_error, FailureType.transient_error
FAIL, RETRY, RATE_LIMITED = (
    ResponseAction.FAIL,
    ResponseAction.RETRY,
    ResponseAction.RATE_LIMITED,
)
RESOLUTION = Resolution(FAIL, CONFIG, "the vendor was closed", "Open the vendor.")
CHECK_FILTERS = (
    "Check workspace_id, tag_id and remote_query in the source's configuration; if they "
    "are correct, send this message to Truto's support."
)
IF_IT_PERSISTS = (
    "No action is needed now: the next sync tries again. If it fails for hours, contact Truto's "
    "support."
)
ROWS = [*ERROR_MAPPING.values()] + [
    row for row in vars(errors).values() if isinstance(row, Resolution)
]


def interpret(status: int, body: ErrorBody = TRUTO, *, sent_cursor: bool = False) -> Resolution:
    return interpret_response(status, body, sent_cursor=sent_cursor)


# --- the message ---


def test_message() -> None:
    """A message consists of the operation, the row's text, the detail and the guidance."""
    error = ReadError(RESOLUTION, "Reading account a", "a", " (HTTP 400)")

    assert error.summary == "Reading account a failed: the vendor was closed (HTTP 400)"
    assert error.message == f"{error.summary}. Open the vendor."
    assert error.internal_message == error.message
    assert str(error) == error.message
    assert (error.resolution, error.account_id) == (RESOLUTION, "a")
    assert (error.operation, error.detail) == ("Reading account a", " (HTTP 400)")
    assert error.failure_type is CONFIG


def test_no_account_and_no_detail() -> None:
    """A message without an account and a detail is complete."""
    error = ReadError(RESOLUTION, "Listing the accounts")

    assert error.message == "Listing the accounts failed: the vendor was closed. Open the vendor."
    assert error.account_id is None
    assert error.detail == ""


def test_masked_secret() -> None:
    """Secrets are masked in every part of a message."""
    SECRETS.replace(["s3cr3t-of-test-errors"], [])
    leaking = Resolution(
        FAIL, CONFIG, "no s3cr3t-of-test-errors", "Use s3cr3t-of-test-errors no more."
    )

    error = ReadError(leaking, "Reading s3cr3t-of-test-errors", detail=" (s3cr3t-of-test-errors)")

    assert error.message == "Reading **** failed: no **** (****). Use **** no more."
    assert (error.operation, error.detail) == ("Reading ****", " (****)")
    assert error.with_detail(", s3cr3t-of-test-errors").detail == " (****), ****"


def test_added_detail() -> None:
    """Adding a detail changes no other part of an error, nor the original error."""
    error = ReadError(RESOLUTION, "Reading account a", "a", " (HTTP 400)")

    more = error.with_detail(", 3 times").with_detail("; status active")
    assert more.detail == " (HTTP 400), 3 times; status active"
    assert more.summary == f"{error.summary}, 3 times; status active"
    assert more.message == f"{more.summary}. Open the vendor."
    assert (more.resolution, more.operation) == (RESOLUTION, "Reading account a")
    assert (more.account_id, more.failure_type) == ("a", CONFIG)
    assert error.detail == " (HTTP 400)"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.error_message)
def test_form_of_rows(row: Resolution) -> None:
    """The text and the guidance of each row fit together as sentences."""
    assert row.error_message
    assert not row.error_message.endswith(".")
    assert row.guidance[0].isupper()
    assert row.guidance.endswith(".")
    assert row.response_action in (FAIL, RETRY, RATE_LIMITED)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (TRUTO, " (HTTP 403)"),
        (ErrorBody(Speaker.TRUTO, "No"), ' (HTTP 403; Truto reported: "No")'),
        (ErrorBody(Speaker.VENDOR, "No"), ' (HTTP 403; the vendor reported: "No")'),
        (ErrorBody(missing_scopes=("a", "b")), " (HTTP 403; missing scopes: a, b)"),
        (
            ErrorBody(Speaker.VENDOR, "No", missing_scopes=("a",)),
            ' (HTTP 403; the vendor reported: "No"; missing scopes: a)',
        ),
    ],
)
def test_detail(body: ErrorBody, detail: str) -> None:
    """The detail has the status of a response, its reason and the missing scopes."""
    assert response_detail(403, body) == detail


def test_many_scopes() -> None:
    """Many missing scopes are cut to one short line."""
    body = ErrorBody(missing_scopes=tuple(f"a:scope\n{number}" for number in range(1000)))

    detail = response_detail(403, body)
    assert detail.startswith(" (HTTP 403; missing scopes: a:scope 0, a:scope 1, ")
    assert len(detail) < MAX_EXCERPT_LENGTH + 50
    assert "\n" not in detail


def test_defect() -> None:
    """The message for a defect has the type and the text of the exception."""
    error = unexpected_error("Reading segments", "a", KeyError("line\nbreak"))

    assert error.resolution is errors.UNEXPECTED
    assert error.failure_type is FailureType.system_error
    assert error.account_id == "a"
    assert str(error) == (
        "Reading segments failed: the connector failed unexpectedly (KeyError: 'line\\nbreak'). "
        "Report this message to the connector's maintainers."
    )
    long = unexpected_error("Reading segments", None, ValueError("x\n" * MAX_EXCERPT_LENGTH))
    assert len(long.detail) == MAX_EXCERPT_LENGTH + len(" (ValueError: )")
    assert "\n" not in long.detail


# --- responses ---


@pytest.mark.parametrize(
    ("status", "of_truto", "of_vendor"),
    [
        (401, Scope.SYNC, Scope.ACCOUNT),
        (403, Scope.SYNC, Scope.ACCOUNT),
        (400, Scope.ACCOUNT, Scope.ACCOUNT),
        (404, Scope.ACCOUNT, Scope.ACCOUNT),
    ],
)
def test_scope_of_rejection(status: int, of_truto: Scope, of_vendor: Scope) -> None:
    """Of the rejections, only Truto's own 401 and 403 end the sync."""
    assert interpret(status, TRUTO).scope is of_truto
    assert interpret(status, VENDOR).scope is of_vendor
    assert interpret(status, TRUTO).error_message != interpret(status, VENDOR).error_message


@pytest.mark.parametrize(
    ("status", "body", "action"),
    [
        *((status, body, FAIL) for status in (400, 401, 403, 404) for body in (TRUTO, VENDOR)),
        *((status, VENDOR, FAIL) for status in (405, 409, 422)),
        *((429, body, RATE_LIMITED) for body in (TRUTO, VENDOR)),
        *((status, body, RETRY) for status in (500, 502, 503, 504) for body in (TRUTO, VENDOR)),
    ],
)
def test_action_of_status(status: int, body: ErrorBody, action: ResponseAction) -> None:
    """The row of a status and its speaker decides whether the request is retried."""
    resolution = interpret(status, body)
    assert resolution is ERROR_MAPPING[status, body.speaker]
    assert resolution.response_action is action
    needs_a_person = action is FAIL or resolution is errors.BLOCKED
    assert resolution.failure_type is (CONFIG if needs_a_person else TRANSIENT)


@pytest.mark.parametrize("sent_cursor", [True, False])
def test_not_found(sent_cursor: bool) -> None:
    """Truto's 404 concerns the account, and the vendor's concerns the resource."""
    assert interpret(404, TRUTO, sent_cursor=sent_cursor) is errors.ACCOUNT_NOT_FOUND
    assert interpret(404, VENDOR, sent_cursor=sent_cursor) is errors.VENDOR_NOT_FOUND


@pytest.mark.parametrize("status", [300, 302, 399])
def test_redirect(status: int) -> None:
    """A redirect is a failure that is not retried."""
    assert interpret(status, VENDOR) is errors.REDIRECTED
    assert errors.REDIRECTED.response_action is FAIL


@pytest.mark.parametrize("status", [200, 204, 299])
def test_success_without_body(status: int) -> None:
    """A successful status without a usable body is a malformed response."""
    assert interpret(status) is errors.MALFORMED


@pytest.mark.parametrize(
    ("body", "name"), [(TRUTO, "Truto"), (VENDOR, "the vendor")], ids=["truto", "vendor"]
)
def test_undocumented_status(body: ErrorBody, name: str) -> None:
    """Undocumented server errors are retried, and so are the 4xx that can pass; the rest is not."""
    for status in (406, 418, 451):
        assert interpret(status, body) == Resolution(
            FAIL, CONFIG, f"{name} rejected the request unexpectedly", CHECK_FILTERS
        )
    for status in (501, 505, 599):
        assert interpret(status, body) == Resolution(
            RETRY, TRANSIENT, f"{name} returned an undocumented server error", IF_IT_PERSISTS
        )
    for status in (408, 423, 425, 499):
        assert interpret(status, body) == Resolution(
            RETRY, TRANSIENT, f"{name} could not respond for the moment", IF_IT_PERSISTS
        )


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 418, 500, 503, 520, 522, 530])
def test_gateway_status(status: int) -> None:
    """A gateway's response is retried whatever its status, and concerns at most one account."""
    for of_account in (True, False):
        found = interpret_response(status, GATEWAY, sent_cursor=True, of_account=of_account)
        assert found is errors.GATEWAY_ANSWERED
    assert errors.GATEWAY_ANSWERED.response_action is RETRY
    assert errors.GATEWAY_ANSWERED.scope is Scope.ACCOUNT
    assert interpret(429, GATEWAY).response_action is RATE_LIMITED


def test_retry_times() -> None:
    """Truto's own 503 is retried for 10 seconds, and every other failure for 5 minutes."""
    assert errors.BLOCKED.retry_seconds == 10
    assert {row.retry_seconds for row in ROWS if row is not errors.BLOCKED} == {300}


@pytest.mark.parametrize("row", [errors.FORBIDDEN, errors.REDIRECTED])
def test_rows_of_one_account(row: Resolution) -> None:
    """Two rows that end the sync have a variant for the case that only one account fails."""
    assert row.scope is Scope.SYNC
    assert row.of_account is not None
    assert row.of_account.scope is Scope.ACCOUNT
    assert row.of_account.failure_type is CONFIG
    assert [r for r in ROWS if r.of_account] == [
        r for r in ROWS if r in (errors.FORBIDDEN, errors.REDIRECTED)
    ]


@pytest.mark.parametrize("speaker", [Speaker.TRUTO, Speaker.VENDOR])
def test_missing_workspace(speaker: Speaker) -> None:
    """A 400 that lists the workspace as missing means that the vendor requires one."""
    body = ErrorBody(speaker, "Not supported", missing_parameters=("list[id]", "workspace[id]"))

    assert interpret(400, body, sent_cursor=True) is errors.WORKSPACE_REQUIRED
    assert interpret(422, body).error_message != errors.WORKSPACE_REQUIRED.error_message
    other = ErrorBody(speaker, missing_parameters=("list[id]",))
    assert interpret(400, other) == interpret(400, ErrorBody(speaker))


def test_unsupported_resource() -> None:
    """Only Truto's own 400 can report that a resource is not supported."""
    reason = "This Resource is NOT SUPPORTED for it"

    assert (
        interpret(400, ErrorBody(Speaker.TRUTO, reason), sent_cursor=True) is errors.NOT_SUPPORTED
    )
    assert interpret(400, ErrorBody(Speaker.VENDOR, reason)) == interpret(400, VENDOR)
    assert interpret(400, ErrorBody(Speaker.TRUTO, "Bad request")) == interpret(400, TRUTO)
    assert interpret(422, ErrorBody(Speaker.TRUTO, reason)) == interpret(422, TRUTO)


@pytest.mark.parametrize("body", [TRUTO, VENDOR], ids=["truto", "vendor"])
def test_rejected_cursor(body: ErrorBody) -> None:
    """A 400 for a request with a cursor means that the cursor was rejected."""
    assert interpret(400, body, sent_cursor=True) is errors.CURSOR_REJECTED
    assert errors.CURSOR_REJECTED.failure_type is FailureType.system_error
    assert interpret(400, body).error_message.endswith("rejected the request")
    assert interpret(404, body, sent_cursor=True) == interpret(404, body)


@pytest.mark.parametrize(
    ("status", "of_list"),
    [
        (400, errors.ACCOUNT_LIST_REJECTED),
        (404, errors.ACCOUNT_LIST_NOT_FOUND),
        (503, errors.UNAVAILABLE),
    ],
)
def test_list_of_accounts(status: int, of_list: Resolution) -> None:
    """If the list of accounts fails, the message names the list."""
    assert interpret_response(status, TRUTO, sent_cursor=False, of_account=False) is of_list
    assert interpret(status) is not of_list


def test_list_of_accounts_with_other_status() -> None:
    """For any other status, the list of accounts has the same row as an account."""
    for status in (302, 401, 418, 500):
        found = interpret_response(status, TRUTO, sent_cursor=False, of_account=False)
        assert found == interpret(status)


# --- requests without a response ---


def no_pool() -> Any:
    return None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.exceptions.SSLError(), errors.TLS_ERROR),
        (requests.ReadTimeout(), errors.TIMED_OUT),
        (requests.ConnectTimeout(), errors.TIMED_OUT),
        (requests.exceptions.ProxyError(), errors.PROXY_ERROR),
        # Airbyte Cloud's request filter raises this if the host's name cannot be resolved.
        (requests.exceptions.InvalidURL(), errors.NAME_ERROR),
        # The response has two different Content-Lengths.
        (requests.exceptions.InvalidHeader(), errors.MALFORMED),
        (requests.exceptions.ContentDecodingError(), errors.MALFORMED),
        (requests.ConnectionError(), errors.CONNECTION_ERROR),
        (requests.exceptions.ChunkedEncodingError(), errors.CONNECTION_ERROR),
    ],
)
def test_no_response(error: requests.RequestException, expected: Resolution) -> None:
    """Each exception that comes instead of a response has its row."""
    assert interpret_exception(error) is expected


def raised_from(cause: Exception) -> Exception:
    """Return an error with an explicit cause."""
    error = ValueError("outer")
    error.__cause__ = cause
    return error


def raised_while(context: Exception) -> Exception:
    """Return an error that was raised while another one was handled."""
    error = ValueError("outer")
    error.__context__ = context
    return error


@pytest.mark.parametrize("wrap", [raised_from, raised_while])
def test_root_cause(wrap: Callable[[Exception], Exception]) -> None:
    """The innermost error of a chain is the root cause."""
    assert root_cause(wrap(wrap(OSError("no\nroute")))) == "no route"
    assert root_cause(wrap(OSError())) == "OSError"
    assert root_cause(OSError("alone")) == "alone"


def test_reason_of_urllib3() -> None:
    """urllib3's reason, or without one the cause, takes precedence over the context."""
    error = MaxRetryError(pool=no_pool(), url="/", reason=OSError("the reason"))
    error.__context__ = OSError("what was handled")
    assert root_cause(error) == "the reason"

    error = MaxRetryError(pool=no_pool(), url="/", reason=None)
    error.__cause__, error.__context__ = OSError("the cause"), OSError("what was handled")
    assert root_cause(error) == "the cause"


def test_circular_causes() -> None:
    """The search for a root cause ends even if errors cause each other."""
    first, second = OSError("first"), OSError("second")
    first.__cause__, second.__cause__ = second, first

    assert root_cause(first) in {"first", "second"}


def test_unresolved_name() -> None:
    """A name that cannot be resolved has its own row, wherever it is among the causes."""
    error = requests.ConnectionError()
    error.__cause__ = raised_from(NameResolutionError("h", no_pool(), socket.gaierror()))
    assert interpret_exception(error) is errors.NAME_ERROR
    proxy = requests.exceptions.ProxyError()
    proxy.__cause__ = error.__cause__
    assert interpret_exception(proxy) is errors.PROXY_NAME_ERROR


@pytest.mark.parametrize(
    ("status", "expected"), [(403, errors.PROXY_ERROR), (407, errors.PROXY_LOGIN_REQUIRED)]
)
def test_status_of_proxy(status: int, expected: Resolution) -> None:
    """A proxy that requires a login has its own row."""
    error = requests.exceptions.ProxyError()
    error.__cause__ = OSError(f"Tunnel connection failed: {status} No")
    assert interpret_exception(error) is expected


@pytest.mark.parametrize(
    ("sent", "settings"),
    [
        ([], ""),
        (["next_cursor", "limit"], ""),
        (["workspace[id]"], "workspace_id; it is"),
        (["remote_query[a]", "tags[id]"], "tag_id and remote_query; they are"),
        (
            ["tenant_id", "workspace[id]", "tags[id]"],
            "workspace_id, tag_id and tenant_ids under additional_accounts; they are",
        ),
    ],
)
def test_settings_in_guidance(sent: list[str], settings: str) -> None:
    """The guidance lists only the settings that the rejected request used."""
    names, _, are = settings.partition("; ")
    guidance = "Send this message to Truto's support."
    if settings:
        check = f"Check {names} in the source's configuration; if {are} correct, "
        guidance = f"{check}send this message to Truto's support."
    assert guidance_for(ERROR_MAPPING[400, Speaker.TRUTO], sent) == guidance
    assert guidance_for(errors.ACCOUNT_LIST_REJECTED, sent) == guidance
    assert guidance_for(RESOLUTION, sent) == "Open the vendor."


def test_through_proxy() -> None:
    """The guidance for a failed proxy names the variable that sets it, and the host."""
    row = errors.through_proxy(errors.PROXY_ERROR, "ALL_PROXY", "truto.invalid")
    assert row.guidance == (
        "Check the proxy settings of the machine that runs the sync (ALL_PROXY), and that the "
        "proxy allows truto.invalid."
    )
    assert row == replace(errors.PROXY_ERROR, guidance=row.guidance)
    assert errors.through_proxy(RESOLUTION, "ALL_PROXY", "truto.invalid") is RESOLUTION


def test_invalid_lines() -> None:
    """A line that is not valid HTTP is not quoted; a connection that was closed is described."""
    for error in (BadStatusLine("some body"), ValueError("some body")):
        assert root_cause(raised_from(error)) == "the response is not valid HTTP"
    assert root_cause(raised_from(RemoteDisconnected("It was closed"))) == "It was closed"


def test_suppressed_context() -> None:
    """The cause of an error that was raised `from None` is the error itself."""
    error = raised_while(OSError("what was handled"))
    error.__suppress_context__ = True
    assert root_cause(raised_from(error)) == "the response is not valid HTTP"
    hidden = OSError("what is shown")
    hidden.__context__, hidden.__suppress_context__ = OSError("what was handled"), True
    assert root_cause(hidden) == "what is shown"


# --- other words for the same failure ---


def test_other_guidance() -> None:
    """An error with another guidance keeps all else, its status too."""
    error = ReadError(RESOLUTION, "Reading account a", "a", " (HTTP 400)", 400, "Close it.")
    other = error.with_guidance("Leave it.")
    assert str(other) == f"{error.summary}. Leave it."
    assert other.status == error.with_detail("x").status == 400
    assert error.with_detail("x").guidance == "Close it."


@pytest.mark.parametrize(
    ("row", "guidance"),
    [
        (errors.RESPONSE_TOO_LARGE, "Send this message to Truto's support."),
        (ERROR_MAPPING[429, Speaker.TRUTO], "Fetch the schema again in some minutes."),
        (errors.MAX_WAIT_EXCEEDED, "Fetch the schema again in some minutes."),
        (
            errors.MALFORMED,
            (
                "Fetch the schema again in some minutes. If it fails for hours, contact Truto's "
                "support."
            ),
        ),
        (
            errors.CONNECTION_ERROR,
            (
                "Check that the machine that runs the sync can reach this address; if it can, "
                "fetch the schema again."
            ),
        ),
        (
            errors.ACCOUNT_FORBIDDEN,
            (
                "Ask Truto's support why, with this message, or name another account in "
                "integrated_account_id."
            ),
        ),
        (RESOLUTION, "Open the vendor."),
    ],
)
def test_guidance_of_discover(row: Resolution, guidance: str) -> None:
    """Whoever fetches a schema is not sent to the next sync."""
    error = for_discover(ReadError(row, "Fetching the schema", "a", " (x)"))
    assert (error.guidance, error.resolution, error.detail) == (guidance, row, " (x)")


@pytest.mark.parametrize(
    ("row", "guidance"),
    [
        (
            errors.NEVER_ANSWERED,
            (
                "Test the connection again in some minutes. If it persists, a firewall or proxy "
                "may drop the connection: whoever runs the network of the machine that runs "
                "the sync must let it reach Truto's API; if nothing there is in the way, contact "
                "Truto's support."
            ),
        ),
        (errors.MAX_WAIT_EXCEEDED, "Test the connection again in some minutes."),
        (
            errors.CONNECTION_ERROR,
            (
                "Check that the machine that runs the sync can reach this address; if it can, "
                "test the connection again."
            ),
        ),
        (errors.ACCOUNT_FORBIDDEN, errors.ACCOUNT_FORBIDDEN.guidance),
    ],
    ids=lambda value: getattr(value, "error_message", ""),
)
def test_guidance_of_check(row: Resolution, guidance: str) -> None:
    """Whoever tests a connection is not sent to the next sync."""
    message = errors.for_check(str(ReadError(row, "Reading a", "a", " (x)")))
    assert message == f"Reading a failed: {row.error_message} (x). {guidance}"


# --- a read through the CDK's own stream ---


def response(status: int, content: object, url: str = "https://h/", **headers: str) -> Any:
    received = requests.Response()
    received.status_code = status
    received._content = json.dumps(content).encode()  # noqa: SLF001 - it has no public setter
    received.headers.update(headers)
    received.request = requests.Request("GET", url).prepare()
    return received


ENVELOPE = {"statusCode": 400, "error": "Bad Request", "message": "No"}
OF_ACCOUNT = "https://h/?integrated_account_id=a"


@pytest.mark.parametrize(
    ("status", "content", "url", "row", "detail"),
    [
        (400, ENVELOPE, OF_ACCOUNT, ERROR_MAPPING[400, Speaker.TRUTO], '; Truto reported: "No"'),
        (
            400,
            ENVELOPE,
            f"{OF_ACCOUNT}&next_cursor=b",
            errors.CURSOR_REJECTED,
            '; Truto reported: "No"',
        ),
        (400, ENVELOPE, "https://h/", errors.ACCOUNT_LIST_REJECTED, '; Truto reported: "No"'),
        (404, "Not here", OF_ACCOUNT, errors.GATEWAY_ANSWERED, ""),
    ],
)
def test_row_through_the_cdk(
    status: int, content: object, url: str, row: Resolution, detail: str
) -> None:
    """The CDK's stream gets the same row, with the whole sentence; no gateway is quoted."""
    found = TableErrorHandler().interpret_response(response(status, content, url))
    sentence = f"{row.error_message} (HTTP {status}{detail}). {row.guidance}"
    assert found == replace(row, error_message=sentence)


def test_success_through_the_cdk() -> None:
    """A good response is a success, but a redirect is none."""
    found = TableErrorHandler().interpret_response(response(200, {}))
    assert found.response_action is ResponseAction.SUCCESS
    redirect = response(302, {}, location="https://elsewhere/")
    assert TableErrorHandler().interpret_response(redirect).response_action is FAIL


def test_exceptions_through_the_cdk() -> None:
    """A request without a response has its row; anything else is a defect."""
    found = TableErrorHandler().interpret_response(requests.ConnectionError("It rained"))
    row = errors.CONNECTION_ERROR
    sentence = f"{row.error_message} (It rained). {row.guidance}"
    assert found == replace(row, error_message=sentence)
    for defect, name in ((KeyError("x"), "KeyError"), (None, "NoneType")):
        found = TableErrorHandler().interpret_response(defect)
        assert found.error_message == (
            f"{errors.UNEXPECTED.error_message} ({name}). {errors.UNEXPECTED.guidance}"
        )


def test_masked_through_the_cdk() -> None:
    """The CDK's stream gets no secret either."""
    SECRETS.replace(["s3cr3t-of-test-errors"], [])
    error = requests.ConnectionError("s3cr3t-of-test-errors")
    found = TableErrorHandler().interpret_response(error)
    assert "(****)" in str(found.error_message)


def test_waits_through_the_cdk() -> None:
    """The CDK's stream waits as long as a response asks; a reset counts for a 429 only."""
    backoff = RetryAfterBackoff()
    assert backoff.backoff_time(response(503, {}, **{"Retry-After": "7"}), 1) == 7
    assert backoff.backoff_time(response(429, {}, **{"ratelimit-reset": "7"}), 1) == 7
    assert backoff.backoff_time(response(503, {}, **{"ratelimit-reset": "7"}), 1) is None
    assert backoff.backoff_time(requests.ConnectionError(), 1) is None
