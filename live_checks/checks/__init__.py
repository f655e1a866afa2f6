"""The checks, one function for each fact, in the order of the results."""

from live_checks.checks import accounts, lists, fields, answers  # noqa: F401, I001 - the order
from live_checks.facts import FACTS

__all__ = ["FACTS"]
