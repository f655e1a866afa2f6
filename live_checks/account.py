"""The data of one integrated account that the checks need, each part requested once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from source_truto_segments.truto.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from live_checks.api import Answer, Api, Params
    from source_truto_segments.truto.vendors import Vendor

Record = dict[str, Any]

ACCOUNTS = "integrated-account"
SEGMENTS = "unified/marketing-automation/segments"
WORKSPACES = "unified/marketing-automation/workspaces"
META = f"{SEGMENTS}/meta/list"

# Pages to read for the whole list (100 segments of Klaviyo), and to compare two reads.
MAX_PAGES, FEW_PAGES = 10, 4
_MAX_WORKSPACES = 3


class UnseenError(Exception):
    """A check that lacks what it needs; its text says why."""


def entries(answer: Answer) -> list[Any] | None:
    """Return the entries of a list in any form that the connector reads; None if it has none."""
    body = answer.body if answer.good else {}
    name = "result" if "result" in body else "results"
    if name not in body:
        return None
    result = body[name]
    if isinstance(result, dict):
        # The object is keyed by the records' ids, or is a single record.
        is_keyed = all(isinstance(value, dict) for value in result.values())
        return list(result.values()) if is_keyed else [result]
    return result if isinstance(result, list) else [] if result is None else None


def records(answer: Answer) -> list[Record]:
    """Return the records of a page.

    Raises:
        UnseenError: If the response is not a page.
    """
    found = entries(answer)
    if found is None:
        raise UnseenError(f"The answer was {answer}{' without a list' * answer.good}.")
    return _objects(answer)


def _objects(answer: Answer) -> list[Record]:
    return [entry for entry in entries(answer) or [] if isinstance(entry, dict)]


def ids(found: Iterable[Record]) -> list[str]:
    """Return the ids as strings, whatever their type."""
    return [str(record.get("id")) for record in found]


def lacks_workspace(answer: Answer) -> bool:
    """Return whether a response is the 400 that asks for a workspace."""
    value: Any = answer.body
    for name in ("truto_error_insight", "missing_required_query_parameters", "value"):
        value = value.get(name) if isinstance(value, dict) else None
    names = value if isinstance(value, list) else []
    return answer.status == 400 and any("workspace" in str(name) for name in names)  # noqa: PLR2004


@dataclass
class Walk:
    """A list of segments, read page by page.

    Attributes:
        pages: The pages that were read.
        complete: Whether they are all pages of the list.
        failure: The response that ended the list, if it was not a page.
        looping: Whether a cursor came back.
    """

    pages: list[Answer] = field(default_factory=list)
    complete: bool = False
    failure: Answer | None = None
    looping: bool = False

    @property
    def sizes(self) -> list[int]:
        """Return how many records each page has."""
        return [len(records(page)) for page in self.pages]

    def records(self, max_pages: int = MAX_PAGES) -> list[Record]:
        """Return the records of the first pages."""
        return [record for page in self.pages[:max_pages] for record in records(page)]


class Account:
    """An integrated account of a Truto API.

    Args:
        api: The API.
        account_id: The account's ID.
    """

    def __init__(self, api: Api, account_id: str) -> None:
        self.api = api
        self.id = account_id
        self.key = ("integrated_account_id", account_id)

    @cached_property
    def entry(self) -> Answer:
        """Return the account's object."""
        return self.api.get(f"{ACCOUNTS}/{self.id}")

    @property
    def integration(self) -> str:
        """Return Truto's name of the integration; "" if it is unknown."""
        found = self.entry.body.get("integration") if self.entry.good else None
        return str(found.get("name") or "") if isinstance(found, dict) else ""

    @property
    def vendor(self) -> Vendor | None:
        """Return what is documented about the vendor; None if it is not one of the seven."""
        return VENDORS.get(self.integration)

    @cached_property
    def bare(self) -> Answer:
        """Return the first page of segments, requested without further parameters."""
        return self.api.get(SEGMENTS, self.key)

    @cached_property
    def workspaces(self) -> Answer:
        """Return the first page of workspaces."""
        return self.api.get(WORKSPACES, self.key)

    @cached_property
    def _begin(self) -> tuple[Params, Answer]:
        """Return the parameters that a list of segments needs, and its first page."""
        params: Params = (self.key,)
        answer = self.bare
        if lacks_workspace(answer):
            for workspace_id in ids(_objects(self.workspaces))[:_MAX_WORKSPACES]:
                params = (self.key, ("workspace[id]", workspace_id))
                answer = self.api.get(SEGMENTS, *params)
                if entries(answer):
                    break
        return params, answer

    @property
    def first(self) -> Answer:
        """Return the first page of segments, of a workspace if the vendor requires one."""
        return self._begin[1]

    def page(self, *params: tuple[str, object]) -> Answer:
        """Return a page of segments, requested with these parameters as well."""
        return self.api.get(SEGMENTS, *self._begin[0], *params)

    @cached_property
    def whole(self) -> Walk:
        """Return all segments."""
        return self.walk(MAX_PAGES, first=self.first)

    @property
    def segments(self) -> list[Record]:
        """Return the segments that were read.

        Raises:
            UnseenError: If there is none.
        """
        found = self.whole.records()
        if not found:
            failure = self.whole.failure
            reason = f"The answer was {failure}." if failure else "The account has no segments."
            raise UnseenError(reason)
        return found

    @cached_property
    def again(self) -> Walk:
        """Return the first segments, read a second time."""
        return self.walk(FEW_PAGES)

    @cached_property
    def small_limit(self) -> int:
        """Return a page size below the default one, which makes about three pages."""
        third = -(-len(self.segments) // 3)
        return max(1, min(max(self.whole.sizes) - 1, third))

    @cached_property
    def limited(self) -> Walk:
        """Return the first segments, read in smaller pages."""
        return self.walk(FEW_PAGES, ("limit", self.small_limit))

    def walk(
        self, max_pages: int, *params: tuple[str, object], first: Answer | None = None
    ) -> Walk:
        """Read a list of segments page by page."""
        walk = Walk()
        cursors: list[str] = []
        while len(walk.pages) < max_pages and not walk.complete and not walk.looping:
            position = tuple(("next_cursor", cursor) for cursor in cursors[-1:])
            answer = first if first and not cursors else self.page(*params, *position)
            if entries(answer) is None:
                walk.failure = answer
                break
            walk.pages.append(answer)
            cursor = answer.body.get("next_cursor")
            if isinstance(cursor, str) and cursor:
                walk.looping = cursor in cursors
                cursors.append(cursor)
            else:
                walk.complete = True
        return walk
