"""A fact that the connector relies on, and what became of it."""

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

# They concern the token, the connection or the moment, and say nothing about a fact.
_SAYS_NOTHING = frozenset({401, 402, 403, 408, 425, 429, *range(500, 600)})


class Outcome(Enum):
    """Whether a fact is as the connector relies on it."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNSEEN = "could not be seen"


@dataclass(frozen=True)
class Seen:
    """What a check saw: types, forms and numbers only, none of the customer's data."""

    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Fact:
    """A row of the result.

    Attributes:
        name: The name of its check.
        relied_on: What the connector relies on.
        follows: What follows from it in the connector.
        setting: The setting that works around a difference; "" if there is none.
        check: Looks at an account.
    """

    name: str
    relied_on: str
    follows: str
    setting: str
    check: Check

    def see(self, account: Account) -> Seen:
        """Check the fact; what cannot be asked cannot be seen."""
        try:
            return self.check(account)
        except (UnseenError, NoAnswerError) as reason:
            return Seen(Outcome.UNSEEN, str(reason))


FACTS: list[Fact] = []
"""All facts, in the order of the result; filled when `live_checks.checks` is imported."""


def fact(relied_on: str, follows: str, setting: str = "") -> Callable[[Check], Check]:
    """Add a check to the facts."""

    def add(check: Check) -> Check:
        FACTS.append(Fact(check.__name__, relied_on, follows, setting, check))
        return check

    return add


def holds_if(condition: bool, text: str) -> Seen:  # noqa: FBT001 - it reads as a sentence
    """Return that a fact holds, or else differs."""
    return Seen(Outcome.HOLDS if condition else Outcome.DIFFERS, text)


def differs(text: str) -> Seen:
    """Return that a fact differs."""
    return Seen(Outcome.DIFFERS, text)


def meant(answer: Answer) -> Answer:
    """Return an answer that says something about a fact.

    Raises:
        UnseenError: If it is a limit, a passing failure, or a refusal of the token or connection.
    """
    if answer.status in _SAYS_NOTHING:
        raise UnseenError(f"The answer was {answer}.")
    return answer
