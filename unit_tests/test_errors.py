"""What each failure means, and the sentences that say so."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.airbyte_secrets_utils import add_to_secrets
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from source_truto_segments import errors
from source_truto_segments.envelope import QUOTE_LENGTH, ErrorBody, Origin
from source_truto_segments.errors import (
    Action,
    Meaning,
    ReadError,
    Scope,
    is_unreachable,
    meaning_of_answer,
    meaning_of_exception,
    meaning_of_status,
    reason_of,
    said,
)

TRUTO, VENDOR = ErrorBody(Origin.TRUTO), ErrorBody(Origin.VENDOR)
CONFIG, TRANSIENT = FailureType.config_error, FailureType.transient_error
MEANING = Meaning(Action.FAIL, CONFIG, "the vendor was closed", "Open the vendor.")
FILTERS = (
    "Check workspace_id, tag_id, page_size and remote_query in the source's configuration; if they "
    "are right, send this message to Truto's support."
)
IF_IT_LASTS = (
    "Nothing is to be done now: the next sync reads it again. If it lasts for hours, contact "
    "Truto's support."
)


def meaning(status: int, body: ErrorBody = TRUTO, *, sent_cursor: bool = False) -> Meaning:
    return meaning_of_answer(status, body, sent_cursor=sent_cursor)


# --- the message ---


def test_given_a_meaning_when_raised_then_the_message_says_what_and_what_to_do() -> None:
    failure = ReadError(MEANING, "Reading account a", "a", " (HTTP 400)")

    assert failure.cause == "Reading account a failed: the vendor was closed (HTTP 400)"
    assert failure.message == f"{failure.cause}. Open the vendor."
    assert failure.internal_message == failure.message
    assert str(failure) == failure.message
    assert (failure.meaning, failure.account_id) == (MEANING, "a")
    assert failure.failure_type is CONFIG


def test_given_no_account_and_nothing_said_when_raised_then_the_message_is_whole() -> None:
    failure = ReadError(MEANING, "Listing the accounts")

    assert failure.message == (
        "Listing the accounts failed: the vendor was closed. Open the vendor."
    )
    assert failure.account_id is None


def test_given_a_secret_when_raised_then_it_is_masked_in_every_part() -> None:
    add_to_secrets("s3cr3t-of-test-errors")
    leaking = Meaning(
        Action.FAIL, CONFIG, "no s3cr3t-of-test-errors", "Use s3cr3t-of-test-errors no more."
    )

    failure = ReadError(leaking, "Reading s3cr3t-of-test-errors", said=" (s3cr3t-of-test-errors)")

    assert failure.message == "Reading **** failed: no **** (****). Use **** no more."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (TRUTO, " (HTTP 403)"),
        (ErrorBody(Origin.TRUTO, "No"), ' (HTTP 403; Truto said: "No")'),
        (ErrorBody(Origin.VENDOR, "No"), ' (HTTP 403; the vendor said: "No")'),
        (ErrorBody(missing_scopes=("a", "b")), " (HTTP 403; missing scopes: a, b)"),
        (
            ErrorBody(Origin.VENDOR, "No", missing_scopes=("a",)),
            ' (HTTP 403; the vendor said: "No"; missing scopes: a)',
        ),
    ],
)
def test_given_an_error_body_when_said_then_its_status_reason_and_scopes_stand_there(
    body: ErrorBody, says: str
) -> None:
    assert said(403, body) == says


def test_given_scopes_without_end_when_said_then_they_are_one_short_line() -> None:
    body = ErrorBody(missing_scopes=tuple(f"a:scope\n{number}" for number in range(1000)))

    line = said(403, body)
    assert line.startswith(" (HTTP 403; missing scopes: a:scope 0, a:scope 1, ")
    assert len(line) < QUOTE_LENGTH + 50
    assert "\n" not in line


# --- answers ---


@pytest.mark.parametrize(
    ("status", "of_truto", "of_vendor"),
    [
        (401, Scope.SYNC, Scope.ACCOUNT),
        (403, Scope.SYNC, Scope.ACCOUNT),
        (400, Scope.ACCOUNT, Scope.ACCOUNT),
        (404, Scope.ACCOUNT, Scope.ACCOUNT),
    ],
)
def test_given_a_refusal_when_asked_then_only_trutos_own_can_end_the_sync(
    status: int, of_truto: Scope, of_vendor: Scope
) -> None:
    assert meaning(status, TRUTO).scope is of_truto
    assert meaning(status, VENDOR).scope is of_vendor
    assert meaning(status, TRUTO).what != meaning(status, VENDOR).what


@pytest.mark.parametrize(
    ("status", "body", "action"),
    [
        (400, TRUTO, Action.FAIL),
        (429, TRUTO, Action.RATE_LIMITED),
        (429, VENDOR, Action.RATE_LIMITED),
        (500, TRUTO, Action.RETRY),
        (500, VENDOR, Action.RETRY),
        (503, TRUTO, Action.FAIL),
        (503, VENDOR, Action.RETRY),
    ],
)
def test_given_a_status_when_asked_then_it_says_whether_it_is_tried_again(
    status: int, body: ErrorBody, action: Action
) -> None:
    found = meaning(status, body)
    assert found.action is action
    assert found.failure_type is (CONFIG if action is Action.FAIL else TRANSIENT)


@pytest.mark.parametrize("status", [300, 302, 399])
def test_given_a_redirect_when_asked_then_it_is_not_followed(status: int) -> None:
    assert meaning(status, VENDOR) is errors.REDIRECTED


@pytest.mark.parametrize("status", [200, 204, 299])
def test_given_a_success_without_its_body_when_asked_then_it_is_malformed(status: int) -> None:
    assert meaning(status) is errors.MALFORMED


@pytest.mark.parametrize(
    ("body", "name"), [(TRUTO, "Truto"), (VENDOR, "the vendor")], ids=["truto", "vendor"]
)
def test_given_an_undocumented_status_when_asked_then_its_class_says_what_to_do(
    body: ErrorBody, name: str
) -> None:
    for status in (402, 418, 499):
        assert meaning(status, body) == Meaning(
            Action.FAIL,
            CONFIG,
            f"{name} refused the request for no documented cause",
            FILTERS,
        )
    for status in (501, 599):
        assert meaning(status, body) == Meaning(
            Action.RETRY, TRANSIENT, f"{name} had an error that is not documented", IF_IT_LASTS
        )


@pytest.mark.parametrize("origin", Origin)
def test_given_a_missing_workspace_when_asked_then_the_vendor_insists_on_one(
    origin: Origin,
) -> None:
    body = ErrorBody(origin, "Not supported", missing_parameters=("list[id]", "workspace[id]"))

    assert meaning(400, body, sent_cursor=True) is errors.WORKSPACE_REQUIRED
    assert meaning(422, body).what != errors.WORKSPACE_REQUIRED.what
    other = ErrorBody(origin, missing_parameters=("list[id]",))
    assert meaning(400, other) == meaning(400, ErrorBody(origin))


def test_given_an_unsupported_resource_when_asked_then_only_truto_can_say_so() -> None:
    reason = "This Resource is NOT SUPPORTED for it"

    assert meaning(400, ErrorBody(Origin.TRUTO, reason), sent_cursor=True) is errors.NOT_SUPPORTED
    assert meaning(400, ErrorBody(Origin.VENDOR, reason)) == meaning(400, VENDOR)
    assert meaning(400, ErrorBody(Origin.TRUTO, "Bad request")) == meaning(400, TRUTO)
    assert meaning(422, ErrorBody(Origin.TRUTO, reason)) == meaning(422, TRUTO)


@pytest.mark.parametrize("body", [TRUTO, VENDOR], ids=["truto", "vendor"])
def test_given_a_cursor_when_a_request_is_rejected_then_it_is_the_cursor(body: ErrorBody) -> None:
    assert meaning(400, body, sent_cursor=True) is errors.REFUSED_CURSOR
    assert meaning(400, body).what.endswith("rejected the request")
    assert meaning(404, body, sent_cursor=True) == meaning(404, body)


@pytest.mark.parametrize(
    ("status", "of_list"),
    [(400, errors.REFUSED_LIST), (404, errors.NO_LIST), (503, errors.UNAVAILABLE_LIST)],
)
def test_given_the_list_of_accounts_when_it_fails_then_the_list_is_told(
    status: int, of_list: Meaning
) -> None:
    assert meaning_of_answer(status, TRUTO, sent_cursor=False, of_account=False) is of_list
    assert meaning(status) is not of_list


def test_given_the_list_of_accounts_when_it_fails_otherwise_then_it_means_the_same() -> None:
    for status in (302, 401, 418, 500):
        found = meaning_of_answer(status, TRUTO, sent_cursor=False, of_account=False)
        assert found == meaning(status)


# --- accounts ---


@pytest.mark.parametrize("status", list(errors.NOT_ACTIVE))
def test_given_an_account_that_is_not_active_when_asked_then_its_own_row_says_why(
    status: str,
) -> None:
    assert meaning_of_status(status) is errors.NOT_ACTIVE[status]


def test_given_a_new_status_when_asked_then_the_user_looks_in_truto() -> None:
    assert meaning_of_status("paused") == Meaning(
        Action.FAIL, CONFIG, "it is not active", "See the account in Truto."
    )


# --- requests without an answer ---


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (requests.exceptions.SSLError(), errors.NO_TLS),
        (requests.ReadTimeout(), errors.TIMED_OUT),
        (requests.ConnectTimeout(), errors.TIMED_OUT),
        (requests.exceptions.InvalidURL(), errors.UNUSABLE_ADDRESS),
        (requests.exceptions.InvalidSchema(), errors.UNUSABLE_ADDRESS),
        (requests.exceptions.MissingSchema(), errors.UNUSABLE_ADDRESS),
        (requests.exceptions.InvalidHeader(), errors.UNUSABLE_ADDRESS),
        (requests.exceptions.ContentDecodingError(), errors.MALFORMED),
        (requests.ConnectionError(), errors.NO_CONNECTION),
        (requests.exceptions.ChunkedEncodingError(), errors.NO_CONNECTION),
    ],
)
def test_given_no_answer_when_asked_then_the_cause_has_its_row(
    failure: requests.RequestException, expected: Meaning
) -> None:
    assert meaning_of_exception(failure) is expected


def raised_from(cause: Exception) -> Exception:
    """A failure that names its cause."""
    failure = ValueError("outer")
    failure.__cause__ = cause
    return failure


def raised_while(context: Exception) -> Exception:
    """A failure that came while another one was handled."""
    failure = ValueError("outer")
    failure.__context__ = context
    return failure


def no_pool() -> Any:
    return None


@pytest.mark.parametrize("wrap", [raised_from, raised_while])
def test_given_a_chain_of_failures_when_asked_then_the_innermost_speaks(
    wrap: Callable[[Exception], Exception],
) -> None:
    assert reason_of(wrap(wrap(OSError("no\nroute")))) == "no route"
    assert reason_of(wrap(OSError())) == "OSError"
    assert reason_of(OSError("alone")) == "alone"


def test_given_the_reason_of_urllib3_when_asked_then_it_goes_before_what_was_handled() -> None:
    failure = MaxRetryError(pool=no_pool(), url="/", reason=OSError("the reason"))
    failure.__context__ = OSError("what was handled")
    assert reason_of(failure) == "the reason"

    failure = MaxRetryError(pool=no_pool(), url="/", reason=None)
    failure.__cause__, failure.__context__ = OSError("the cause"), OSError("what was handled")
    assert reason_of(failure) == "the cause"


def test_given_failures_that_cause_each_other_when_asked_then_it_ends() -> None:
    first, second = OSError("first"), OSError("second")
    first.__cause__, second.__cause__ = second, first

    assert reason_of(first) in {"first", "second"}
    assert not is_unreachable(first)


@pytest.mark.parametrize("wrap", [raised_from, raised_while])
def test_given_no_connection_was_made_when_asked_then_the_server_is_unreachable(
    wrap: Callable[[Exception], Exception],
) -> None:
    for failure in (NewConnectionError(no_pool(), "refused"), ConnectTimeoutError()):
        assert is_unreachable(wrap(wrap(failure)))
        assert is_unreachable(failure)
    assert not is_unreachable(wrap(ConnectionResetError()))
