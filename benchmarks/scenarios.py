"""What is read: each scenario is a sandbox and a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SEGMENTS = 10
LATENCY_SECONDS = 0.3
VENDOR_WAIT_SECONDS = 20.0
# What `num_workers` allows at most.
MOST_WORKERS = 50


@dataclass(frozen=True)
class Scenario:
    """One read of many accounts.

    Attributes:
        name: Its name in the tables.
        what: What is read, for a person.
        accounts: How many accounts the sandbox has.
        num_workers: Accounts read side by side; None leaves the connector's default.
        finds: Whether the connector lists the accounts itself, or they are in its configuration.
        all_vendors: Whether Beehiiv is among the vendors, whose accounts need three requests.
        trouble: What some of the accounts meet: "broken" ones fail, "waiting" ones are held up.
        wait: Seconds that the waiting ones are held up.
        skip: Whether an account that fails is a warning.
        wrong_token: Whether Truto refuses the token.
        incremental: Whether the sync mode is incremental; else it is a full refresh.
    """

    name: str
    what: str
    accounts: int
    num_workers: int | None = MOST_WORKERS
    finds: Literal["all", "listed"] = "all"
    all_vendors: bool = False
    trouble: Literal["broken", "waiting"] | None = None
    wait: float = VENDOR_WAIT_SECONDS
    skip: bool = False
    wrong_token: bool = False
    incremental: bool = False


def scenarios(accounts: int, wait: float = VENDOR_WAIT_SECONDS) -> list[Scenario]:
    """All scenarios, for a number of accounts; the documented figures are for 1,000.

    Args:
        accounts: Accounts of most of the scenarios; one has five times, one a fifth as many.
        wait: Seconds that a vendor's limit lasts, where one is met.
    """
    few = max(accounts // 5, 20)
    return [
        Scenario("1", "six vendors, one request an account", accounts),
        Scenario("1b", "all seven vendors", accounts, all_vendors=True),
        Scenario("1c", "as 1, incremental", accounts, incremental=True),
        Scenario("2", "as 1, five times as many", 5 * accounts),
        Scenario("3", "as 1, default workers", accounts, num_workers=None),
        Scenario("4", "a wrong token, accounts to be found", accounts, wrong_token=True),
        Scenario(
            "4b", "a wrong token, accounts listed", accounts, finds="listed", wrong_token=True
        ),
        Scenario("5", "3 % fail and are skipped", accounts, trouble="broken", skip=True),
        Scenario(
            "6",
            f"15 % wait {wait:.0f} s for their vendor",
            few,
            num_workers=5,
            trouble="waiting",
            wait=wait,
        ),
    ]
