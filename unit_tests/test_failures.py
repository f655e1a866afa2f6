"""Failures grouped by cause, and the error that a sync raises."""

import logging

import pytest
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction

from source_truto_segments.sync.failures import (
    MAX_MESSAGE_LENGTH,
    MAX_MESSAGES,
    Failures,
    cut,
    is_of_sync,
    shown,
)
from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError, Resolution, Scope

CONFIG, SYSTEM, TRANSIENT = (
    FailureType.config_error,
    FailureType.system_error,
    FailureType.transient_error,
)


def failed(
    account: str | None,
    message: str = "it rained",
    kind: FailureType = TRANSIENT,
    detail: str = " (HTTP 500)",
    scope: Scope = Scope.ACCOUNT,
) -> ReadError:
    row = Resolution(ResponseAction.FAIL, kind, message, "Wait.", scope)
    return ReadError(row, f"Reading the segments of integrated account {account}", account, detail)


def collected(*errors_: ReadError, skip: bool = False) -> Failures:
    failures = Failures(skip_accounts=skip)
    for error in errors_:
        failures.add(error)
    return failures


def test_none() -> None:
    """If nothing failed, there is nothing to raise or to report."""
    failures = collected()
    assert not failures
    assert not failures.any_of_sync
    assert failures.final_error() is None
    assert (failures.messages(), failures.grouped(), [*failures.traced(None)]) == ([], [], [])


def test_one_account(caplog: pytest.LogCaptureFixture) -> None:
    """A single failure is raised as it is, and logged once."""
    error = failed("a")
    failures = collected(error, failed("a"))
    assert failures
    assert failures.final_error() is error
    assert failures.messages() == [str(error)]
    assert failures.grouped() == []
    assert [*failures.traced(error)] == []
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(logging.WARNING, str(error))]


def test_one_cause() -> None:
    """Accounts that fail in the same way share one message."""
    failures = Failures(skip_accounts=False)
    for number, account in enumerate("abcde"):
        detail = f" (HTTP {500 + number % 4})"
        failures.add(failed(account, detail=detail), "klaviyo" if number else "brevo")
    expected = (
        "Reading the segments of integrated accounts failed: it rained. Affected: 5 integrated "
        "accounts (klaviyo: 4, brevo: 1), such as a, b, c and 2 more. Reported: (HTTP 500); "
        "(HTTP 501); (HTTP 502). Wait."
    )
    assert failures.messages() == failures.grouped() == [expected]
    assert failures.final_error() is None
    (trace,) = failures.traced(None)
    assert (trace.message, trace.internal_message) == (expected, expected)
    assert trace.failure_type is TRANSIENT


def test_without_details() -> None:
    """A message leaves out details and integrations that are not known."""
    failures = collected(failed("a", detail=""), failed("b", detail=""))
    (text,) = failures.messages()
    assert failures.grouped() == [text]
    assert text == (
        "Reading the segments of integrated accounts failed: it rained. Affected: 2 integrated "
        "accounts, such as a, b. Wait."
    )


def test_most_accounts_first() -> None:
    """The cause that affects most accounts comes first; the summary has the most urgent type."""
    failures = collected(
        failed("a", "one", SYSTEM), *(failed(x, "two") for x in "bcd"), failed("e", "three", CONFIG)
    )
    assert [text.split(": ")[1].split(".")[0].split(" (")[0] for text in failures.messages()] == [
        "two", "one", "three"
    ]  # fmt: skip
    assert [trace.failure_type for trace in failures.traced(None)] == [TRANSIENT, SYSTEM, CONFIG]
    summary = failures.summary("5 of 9 failed.")
    assert summary.failure_type is CONFIG
    assert summary.message == (
        "5 of 9 failed. For each cause, an earlier message says who must do what."
    )
    assert collected(failed("a", "x"), failed("b", "y", SYSTEM)).summary("").failure_type is SYSTEM


@pytest.mark.parametrize(("causes", "messages"), [(18, 18), (19, 19), (20, 19), (50, 19)])
def test_many_causes(causes: int, messages: int) -> None:
    """With the raised error, there are at most 20 messages, of which one counts the rest."""
    failures = collected(*(failed(f"a{n}", f"cause {n}") for n in range(causes)))
    found = failures.messages()
    assert len(found) == len([*failures.traced(None)]) == messages == min(causes, MAX_MESSAGES - 1)
    if causes > MAX_MESSAGES - 1:
        more = causes - messages + 1
        assert found[-1] == f"{more} more failures have {more} other causes; see the log."
    else:
        assert found == [str(failed(f"a{n}", f"cause {n}")) for n in range(causes)]


def test_of_sync() -> None:
    """A failure of the whole sync is raised once, after the earlier failures are reported."""
    refused = failed("b", "refused", CONFIG, scope=Scope.SYNC)
    failures = collected(failed("a"), refused, failed("c", "refused", CONFIG, scope=Scope.SYNC))
    assert failures.any_of_sync
    assert failures.final_error() is refused
    assert [trace.message for trace in failures.traced(refused)] == [str(failed("a"))]
    assert next(iter(failures.traced(None))) is refused
    assert is_of_sync(failed(None))
    assert not is_of_sync(failed("a"))


def test_skipped() -> None:
    """Skipped accounts do not fail the sync, but a defect or a failure of the whole sync does."""
    failures = collected(failed("a"), failed("b", "other"), skip=True)
    assert failures.final_error() is None
    assert [*failures.traced(None)] == []
    defect = ReadError(errors.UNEXPECTED, "Reading", "c")
    failures.add(defect)
    assert failures.final_error() is defect
    assert failures.is_fatal(failed(None))
    assert not failures.is_fatal(failed("d"))


def test_bounds() -> None:
    """Lists of ids are cut to three, and messages to a maximum length."""
    assert shown([]) == ""
    assert shown(["a", "b", "c"]) == "a, b, c"
    assert shown([str(number) for number in range(1_003)]) == "0, 1, 2 and 1,000 more"
    assert cut("x" * MAX_MESSAGE_LENGTH) == "x" * MAX_MESSAGE_LENGTH
    assert cut("x" * (MAX_MESSAGE_LENGTH + 1)) == "x" * (MAX_MESSAGE_LENGTH - 1) + "…"
    long = failed("a", detail="y" * 9_000)
    assert len(collected(long).messages()[0]) == MAX_MESSAGE_LENGTH


def test_one_account_in_two_ways(caplog: pytest.LogCaptureFixture) -> None:
    """A second failure of an account is logged if it differs, and otherwise dropped."""
    caplog.set_level(logging.INFO)
    first, other = failed("a"), failed("a", detail=" (HTTP 502)")
    failures = collected(first, failed("a"), other)
    assert failures.messages() == [str(first)]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, str(first)),
        (logging.INFO, str(other)),
    ]


def test_names_with_their_count() -> None:
    """If the caller passes a total, all names are listed and the rest is counted."""
    assert shown(["a", "b", "c", "d"], 4) == "a, b, c, d"
    assert shown(["a", "b", "c", "d"], 14) == "a, b, c, d and 10 more"


def test_several_operations_and_guidances() -> None:
    """Accounts that share a cause, but not what failed or the advice, have general words for it."""
    row = Resolution(ResponseAction.FAIL, CONFIG, "it rained", "Wait.")
    first = ReadError(row, "Reading the segments of integrated account a", "a", guidance="Run.")
    second = ReadError(row, "Reading the workspaces of integrated account b", "b")
    assert collected(first, second).messages() == [
        (
            "Reading integrated accounts failed: it rained. Affected: 2 integrated accounts, such "
            "as a, b. Wait."
        )
    ]


def test_percent_signs(caplog: pytest.LogCaptureFixture) -> None:
    """What an error quotes is no format of the log."""
    caplog.set_level(logging.INFO)
    collected(failed("a", detail=" (100%d)"), failed("a", detail=" (5%s)"))
    assert [message[-14:] for message in caplog.messages] == ["(100%d). Wait.", "d (5%s). Wait."]
