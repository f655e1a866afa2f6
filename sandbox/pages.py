"""The pages of a list, as each vendor cuts them, with everything that can go wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sandbox import cursors, faults, responses
from sandbox.cursors import Position
from sandbox.environment import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.environment import Account, Oversized, Records
    from sandbox.request import Request
    from sandbox.responses import Response

    Matches = Callable[[Any], bool] | None

# No number of records has more digits.
_LIMIT = re.compile(r"[1-9][0-9]{0,17}")
# A real cursor keeps its position unless all of these records around it are deleted at once.
_BEFORE, _AFTER = 10, 5


def list_page(
    request: Request, account: Account, records: Records, scope: str, *, looping: bool
) -> Response:
    """Respond with the page that a request asks for, in the unified envelope.

    Args:
        request: The request.
        account: The account, which decides how its pages are cut and shown.
        records: The whole list.
        scope: The identity of the list; cursors of another list are refused.
        looping: Whether the account's loop, if it has one, affects this list.
    """
    limit, refusal = parse_limit(request)
    if refusal is not None:
        return refusal
    if (error := account.limit_error(limit)) is not None:
        return responses.vendor_error(400, "", raw_response=error)
    cursor = request.param("next_cursor")
    position = cursors.read(cursor, scope, account.cursor_style) if cursor else Position()
    if position is None or (cursor and account.cursors_expire):
        return faults.stale_cursor_response()

    size, matches = account.page_size(limit), _tag_filter(request, account)
    page, following = _read_page(position, records, account, size, matches, looping=looping)
    if limit and size and limit > size and account.oversized in ("end", "skip"):
        page, following = _read_oversized(position, records, size, limit, account.oversized)
    next_cursor = (
        account.last_cursor
        if following is None
        else cursors.write(following, scope, account.cursor_style)
    )
    hidden = _hidden_fields(request)
    envelope = {
        "result": _in_form([_without(record, hidden) for record in page], account),
        "next_cursor": next_cursor,
        "prev_cursor": None,
        "result_count": len(page),
        "is_partial_response": account.partial is True
        or (account.partial == "inner" and following is not None),
    }
    if next_cursor is MISSING:
        del envelope["next_cursor"]
    return responses.ok(envelope)


def cut_page(
    items: Any, start: int, size: int | None, matches: Matches = None
) -> tuple[list[Any], int | None]:
    """Return the items of a page and the index at which the next page begins; None at the end.

    It only indexes `items`, which can be made on demand and need not fit into memory.
    """
    page: list[Any] = []
    for index in range(start, len(items)):
        is_full = size is not None and len(page) >= size
        if is_full and matches is None:
            return page, index
        item = items[index]
        if matches is not None and not matches(item):
            continue
        if is_full:
            return page, index
        page.append(item)
    return page, None


def parse_limit(request: Request) -> tuple[int | None, Response | None]:
    """Return the `limit` of a request, or Truto's refusal if it is not valid."""
    text = request.param("limit")
    if text is None:
        return None, None
    if not _LIMIT.fullmatch(text):
        return None, responses.truto_error(400, "limit must be a positive integer")
    return int(text), None


def _read_page(
    position: Position,
    records: Records,
    account: Account,
    size: int | None,
    matches: Matches,
    *,
    looping: bool,
) -> tuple[list[Any], Position | None]:
    """Return the records at a position, and the next position."""
    loop = account.loop if looping else None
    if loop == "empty" or (loop is None and position.step < account.empty_pages):
        return [], replace(position, step=position.step + 1)
    is_numbered = account.integration.paging == "page"
    start = position.index * (size or 0) if is_numbered else _resume(position, records)
    page, end = cut_page(records, start, size, matches)
    if loop == "page":
        return page, Position(0, position.step + 1)
    if loop == "cursor":
        _, end = cut_page(records, 0, size, matches)
        return page, _following(Position(), end, records, account) or Position()
    return page, _following(position, end, records, account)


def _read_oversized(
    position: Position, records: Records, size: int, limit: int, oversized: Oversized
) -> tuple[list[Any], Position | None]:
    """Return a page that is smaller than Truto assumes, and the next position."""
    page, _ = cut_page(records, position.index, size)
    following = position.index + limit
    return page, Position(following) if oversized == "skip" and following < len(records) else None


def _following(
    position: Position, end: int | None, records: Records, account: Account
) -> Position | None:
    """Return the position after a page that ends before the index `end`, as the vendor counts."""
    if end is None:
        return None
    if account.integration.paging == "page":
        return Position(position.index + 1)
    if account.integration.paging == "offset":
        return Position(end)
    first, last = max(0, end - _BEFORE), min(len(records), end + _AFTER)
    before = tuple(_fingerprint(records[index]) for index in reversed(range(first, end)))
    return Position(end, 0, before, tuple(_fingerprint(records[n]) for n in range(end, last)))


def _resume(position: Position, records: Records) -> int:
    """Return the present index of a position; a real cursor follows its neighboring records."""
    last = position.index - 1
    if not position.before or (
        last < len(records) and _fingerprint(records[last]) == position.before[0]
    ):
        return position.index
    found = {_fingerprint(records[index]): index for index in range(len(records))}
    for fingerprint in position.before:
        if fingerprint in found:
            return found[fingerprint] + 1
    return next((found[key] for key in position.after if key in found), position.index)


def _fingerprint(record: Any) -> str:
    identity = record.get("id", record) if isinstance(record, Mapping) else record
    return cursors.fingerprint(repr(identity))


def _tag_filter(request: Request, account: Account) -> Matches:
    tags = request.params("tags[id]")
    # The other vendors silently ignore the filter.
    if not tags or account.vendor != "klaviyo" or request.kind != "segments":
        return None

    def is_tagged(record: Any) -> bool:
        try:
            tagged = record["remote_data"]["relationships"]["tags"]["data"]
            return any(tag["id"] in tags for tag in tagged)
        except (KeyError, TypeError):
            return False

    return is_tagged


def _hidden_fields(request: Request) -> frozenset[str]:
    hidden = set(request.params("truto_exclude_fields[]"))
    if request.param("truto_ignore_remote_data") == "true":
        hidden.add("remote_data")
    return frozenset(hidden)


def _without(record: Any, hidden: frozenset[str]) -> Any:
    if not hidden or not isinstance(record, Mapping):
        return record
    return {name: value for name, value in record.items() if name not in hidden}


def _in_form(page: list[Any], account: Account) -> Any:
    if account.form == "keyed":
        return {
            str(record.get("id", index)) if isinstance(record, Mapping) else str(index): record
            for index, record in enumerate(page)
        }
    if account.form == "bare" and len(page) == 1:
        return page[0]
    return page
