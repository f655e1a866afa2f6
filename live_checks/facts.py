"""The facts that the connector relies on, and the outcomes of their checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from live_checks.account import Account, UnseenError
from live_checks.api import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from live_checks.api import Answer

    Check = Callable[[Account], "Seen"]

# These statuses concern the token, the connection or the moment, and show nothing about a fact.
_SAYS_NOTHING = frozenset({401, 402, 403, 408, 425, 429, *range(500, 600)})


class Outcome(Enum):
    """Whether a fact holds, as the connector assumes."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNSEEN = "could not be seen"


@dataclass(frozen=True)
class Seen:
    """What a check saw, as types, forms and numbers without any of the customer's data."""

    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Fact:
    """A row of the results.

    Attributes:
        name: The name of its check.
        relied_on: The assumption of the connector.
        follows: What follows from it in the connector.
        setting: The setting that works around a difference; "" if there is none.
        check: Checks the fact with an account.
    """

    name: str
    relied_on: str
    follows: str
    setting: str
    check: Check

    def see(self, account: Account) -> Seen:
        """Check the fact; it counts as unseen if the check lacks what it needs."""
        try:
            return self.check(account)
        except (UnseenError, NoAnswerError) as reason:
            return Seen(Outcome.UNSEEN, str(reason))


FACTS: list[Fact] = []
"""All facts in the order of the results; importing `live_checks.checks` adds them."""


def fact(relied_on: str, follows: str, setting: str = "") -> Callable[[Check], Check]:
    """Register the decorated check as a fact."""

    def add(check: Check) -> Check:
        FACTS.append(Fact(check.__name__, relied_on, follows, setting, check))
        return check

    return add


def holds_if(condition: bool, text: str) -> Seen:  # noqa: FBT001 - it reads as a sentence
    """Return that a fact holds if the condition is true, and differs otherwise."""
    return Seen(Outcome.HOLDS if condition else Outcome.DIFFERS, text)


def differs(text: str) -> Seen:
    """Return that a fact differs."""
    return Seen(Outcome.DIFFERS, text)


def meant(answer: Answer) -> Answer:
    """Return the response if it shows something about a fact.

    Raises:
        UnseenError: If it is a rate limit, a temporary failure, or rejects the token or connection.
    """
    if answer.status in _SAYS_NOTHING:
        raise UnseenError(f"The answer was {answer}.")
    return answer
