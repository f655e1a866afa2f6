"""Pages of a list, with everything that can be odd about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandbox import answers, cursors, faults
from sandbox.cursors import Position
from sandbox.environment import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.answers import Answer
    from sandbox.environment import Account, Records
    from sandbox.request import Request

    Wanted = Callable[[Any], bool] | None

# No more digits than any list has records.
_LIMIT = re.compile(r"[1-9][0-9]{0,17}")


def list_page(
    request: Request, account: Account, records: Records, scope: str, *, looping: bool
) -> Answer:
    """Answer with the page that a request asks for, in the unified envelope.

    Args:
        request: The request.
        account: The account, for its ways with pages.
        records: The whole list.
        scope: What the cursors of this list are good for, and no other's are.
        looping: Whether the account's loop, if it has one, concerns this list.
    """
    limit, refusal = asked_limit(request)
    if refusal is not None:
        return refusal
    scope = f"{scope}/{account.cursor_generation}"
    cursor = request.param("next_cursor")
    position = cursors.read(cursor, scope, account.cursor_style) if cursor else Position()
    if position is None or (cursor and account.cursors_expire):
        return faults.stale_cursor_answer()

    page, following = _turn_to(
        position,
        records,
        account,
        account.page_size(limit),
        _is_tagged(request, account),
        looping=looping,
    )
    next_cursor = (
        account.last_cursor
        if following is None
        else cursors.write(following, scope, account.cursor_style)
    )
    hidden = _hidden_fields(request)
    envelope = {
        "result": _in_form([_shown(record, hidden) for record in page], account),
        "next_cursor": next_cursor,
        "prev_cursor": None,
        "result_count": len(page),
        "is_partial_response": account.partial,
    }
    if next_cursor is MISSING:
        del envelope["next_cursor"]
    return answers.ok(envelope)


def cut_page(
    items: Any, start: int, size: int | None, wanted: Wanted = None
) -> tuple[list[Any], int | None]:
    """The items of a page, and where the next one begins; none at the end.

    Only indexes, so that the items can be made on demand and need not fit into memory.
    """
    page: list[Any] = []
    for place in range(start, len(items)):
        is_full = size is not None and len(page) >= size
        if is_full and wanted is None:
            return page, place
        item = items[place]
        if wanted is not None and not wanted(item):
            continue
        if is_full:
            return page, place
        page.append(item)
    return page, None


def asked_limit(request: Request) -> tuple[int | None, Answer | None]:
    """The `limit` of a request, or the refusal of one that makes no sense."""
    text = request.param("limit")
    if text is None:
        return None, None
    if not _LIMIT.fullmatch(text):
        return None, answers.truto_error(400, "limit must be a positive integer")
    return int(text), None


def _turn_to(
    position: Position,
    records: Records,
    account: Account,
    size: int | None,
    wanted: Wanted,
    *,
    looping: bool,
) -> tuple[list[Any], Position | None]:
    """The records at a position, and the position that follows."""
    loop = account.loop if looping else None
    if loop == "empty" or (loop is None and position.step < account.empty_pages):
        return [], Position(position.offset, position.step + 1)
    page, offset = cut_page(records, position.offset, size, wanted)
    if loop == "page":
        return page, Position(0, position.step + 1)
    if loop == "cursor":
        _, second = cut_page(records, 0, size, wanted)
        return page, Position(second or 0)
    return page, None if offset is None else Position(offset)


def _is_tagged(request: Request, account: Account) -> Wanted:
    tags = request.params("tags[id]")
    # The other vendors ignore the filter without a word.
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


def _shown(record: Any, hidden: frozenset[str]) -> Any:
    if not hidden or not isinstance(record, Mapping):
        return record
    return {name: value for name, value in record.items() if name not in hidden}


def _in_form(page: list[Any], account: Account) -> Any:
    if account.form == "keyed":
        return {
            str(record.get("id", place)) if isinstance(record, Mapping) else str(place): record
            for place, record in enumerate(page)
        }
    if account.form == "bare" and len(page) == 1:
        return page[0]
    return page
