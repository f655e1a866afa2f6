"""The lines that report the progress of a sync."""

from collections import Counter

import pytest

from source_truto_segments.sync.progress import Progress
from source_truto_segments.truto.rate_limiter import Delay


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (
            Progress(),
            "Progress: the sync has finished 0 of 0 accounts found so far and emitted 0 records.",
        ),
        (
            Progress({"a", "b"}, is_all_found=True, done={"a"}, records=Counter(segments=1234)),
            "Progress: the sync has finished 1 of 2 accounts and emitted 1,234 records.",
        ),
        (
            # An account can be in both: one stream was read, and another failed.
            Progress({"a", "b", "c"}, done={"a", "b"}, failed={"b", "c"}),
            (
                "Progress: the sync has finished 3 of 3 accounts found so far (2 failed) and "
                "emitted 0 records."
            ),
        ),
        (
            Progress({"a"}, is_all_found=True, done={"a"}, failed={"b", "c"}),
            "Progress: the sync has finished 3 of 3 accounts (2 failed) and emitted 0 records.",
        ),
        (
            Progress(
                {str(number) for number in range(12_345)},
                is_all_found=True,
                done={str(number) for number in range(2000)},
                failed={str(number) for number in range(3000, 4000)},
                records=Counter(segments=1_000_000, workspaces=500, integrated_accounts=1),
            ),
            (
                "Progress: the sync has finished 3,000 of 12,345 accounts (1,000 failed) and "
                "emitted 1,000,501 records."
            ),
        ),
    ],
    ids=["nothing", "some", "failed", "failed before found", "many"],
)
def test_status_line(progress: Progress, line: str) -> None:
    """The progress line counts accounts, failures and records."""
    assert progress.status_line([]) == line


def test_first_response() -> None:
    """Until Truto responds, the progress line says so, unless a wait is the reason."""
    waiting = Progress().status_line([], awaits_first_response=True)
    assert waiting.endswith(" 0 records. The sync waits for the first response from Truto.")
    delays = [Delay(12.4, "Truto to be reachable again", for_token=True)]
    line = Progress().status_line(delays, awaits_first_response=True)
    assert line == Progress().status_line(delays)


FOR_TOKEN = Delay(12.4, "Truto's limit", for_token=True)
FOR_ENVIRONMENT = Delay(5, "the backoff")


def of_account(account_id: str) -> Delay:
    return Delay(9, "the vendor's limit", account_id)


@pytest.mark.parametrize(
    ("delays", "waiting"),
    [
        ([FOR_TOKEN], "The sync waits 12 s for Truto's limit"),
        ([of_account("a")], "Account a (the vendor's limit) waits"),
        ([FOR_ENVIRONMENT], "The list of accounts (the backoff) waits"),
        (
            [of_account("a"), FOR_ENVIRONMENT, of_account("c")],
            (
                "Account a (the vendor's limit), the list of accounts (the backoff), "
                "account c (the vendor's limit) wait"
            ),
        ),
        (
            [of_account(str(number)) for number in range(1004)],
            (
                "Account 0 (the vendor's limit), account 1 (the vendor's limit), "
                "account 2 (the vendor's limit) and 1,001 more wait"
            ),
        ),
    ],
    ids=["token", "account", "environment", "three", "many"],
)
def test_delays(delays: list[Delay], waiting: str) -> None:
    """The progress line reports what the sync is waiting for."""
    line = Progress({"a"}, is_all_found=True).status_line(delays)
    assert line == (
        f"Progress: the sync has finished 0 of 1 account and emitted 0 records. {waiting}."
    )


def test_one_of_each() -> None:
    """A count of one has a noun in the singular."""
    progress = Progress({"a"}, is_all_found=True, done={"a"}, records=Counter(segments=1))
    line = "Progress: the sync has finished 1 of 1 account and emitted 1 record."

    assert progress.status_line([]) == line
    summary = "Read 1 integrated account. Records emitted: 1 of segments."
    assert progress.final_summary(["segments"]) == summary


def test_sync_without_failures() -> None:
    """The summary of a sync without failures counts the records of each stream."""
    found = {str(number) for number in range(1500)}
    progress = Progress(found, records=Counter(segments=12_345, workspaces=1))

    assert progress.final_summary(["workspaces", "segments", "integrated_accounts"]) == (
        "Read 1,500 integrated accounts. Records emitted: 1 of workspaces, 12,345 of segments, "
        "0 of integrated_accounts."
    )


def test_failed_accounts() -> None:
    """The summary lists the failed accounts in order."""
    progress = Progress({"a", "b", "c"}, done={"b"}, failed={"c", "a"}, records=Counter(segments=5))

    assert progress.final_summary(["segments"]) == (
        "2 of 3 integrated accounts could not be read: a, c. Records emitted: 5 of segments."
    )
