"""Facts about the list of segments: its envelope, its end, its cursors and its page sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from live_checks.account import (
    FEW_PAGES,
    MAX_PAGES,
    Account,
    Record,
    UnseenError,
    Walk,
    entries,
    ids,
    lacks_workspace,
    records,
)
from live_checks.api import VENDOR
from live_checks.facts import Seen, differs, fact, holds_if, meant
from live_checks.forms import count, kind, span, tally, type_name

if TYPE_CHECKING:
    from live_checks.api import Answer

ENVELOPE = ("result", "next_cursor", "prev_cursor", "result_count", "is_partial_response")
_REFUSED = frozenset({400, 422})
# The largest pages that the vendors document; the connector asks for none above 100.
_MAXIMA = {"activecampaign": 10_000, "beehiiv": 100, "brevo": 50, "flodesk": 100, "klaviyo": 10}
# The list of this integration has a single page.
_ONE_PAGE = "customerio"


@fact(
    "Only Beehiiv requires a workspace for segments, and says so in a 400.",
    "After that 400, the connector reads the account by workspace; another 400 fails it.",
    "workspace_id",
)
def workspace_required(account: Account) -> Seen:
    answer = meant(account.bare)
    required = lacks_workspace(answer)
    expected = required if account.vendor is None else account.vendor.requires_workspace
    if not required and not expected and not answer.good:
        raise UnseenError(f"The answer was {answer}.")
    wanted = "asks for a workspace" if required else "without a workspace"
    return holds_if(required is expected, f"{answer}, {wanted}")


@fact(
    "A page is an object whose result is a list of objects.",
    "The connector also reads objects keyed by id, one bare record and null. Anything else fails.",
)
def envelope(account: Account) -> Seen:
    answer = meant(account.first)
    if not answer.good:
        if answer.speaker == VENDOR:
            raise UnseenError(f"The answer was {answer}.")
        return differs(f"{answer}")
    result = answer.body.get("result")
    objects = isinstance(result, list) and all(isinstance(entry, dict) for entry in result)
    known = [name for name in ENVELOPE if name in answer.body]
    further = len(answer.body) - len(known)
    return holds_if(
        objects,
        f"result: {kind(answer.body, 'result')}, {count(len(entries(answer) or []), 'record')}; "
        f"keys: {', '.join(known)}{f' and {further} more' if further else ''}; "
        f"{answer.size:,} bytes",
    )


@fact(
    "Without segments, the list is empty; for ActiveCampaign, it can be the vendor's 404.",
    "Any other error fails the account.",
    "on_account_error: skip",
)
def no_segments(account: Account) -> Seen:
    answer = meant(account.first)
    if account.whole.records():
        raise UnseenError("The account has segments.")
    is_404 = answer.status == 404 and answer.speaker == VENDOR  # noqa: PLR2004
    accepted = is_404 and account.integration == "activecampaign"
    return holds_if(entries(answer) == [] or accepted, f"{answer}")


@fact(
    'The list ends with a next_cursor that is null, missing or "".',
    "An empty page with the cursor that was just sent ends it, too; any other value continues it.",
)
def end_of_list(account: Account) -> Seen:
    walk = account.whole
    pages = count(len(walk.pages), "page")
    if walk.looping:
        empty = " with an empty page" if not walk.sizes[-1] else ""
        return differs(f"after {pages} a cursor came back{empty}")
    if walk.failure is not None:
        raise UnseenError(f"Page {len(walk.pages) + 1} was {walk.failure}.")
    if not walk.complete:
        raise UnseenError(f"The list has more than {pages}.")
    end = kind(walk.pages[-1].body, "next_cursor")
    before = walk.sizes[:-1].count(0)
    text = f"{end} after {pages}" + (f", {before} of them empty with a cursor" if before else "")
    return holds_if(end in ("null", "missing", "blank"), text)


@fact(
    "A cursor is a string. Sent back unchanged, it leads to records that no earlier page had.",
    "A cursor that comes back is a pagination loop and fails the account.",
)
def cursor_sent_back(account: Account) -> Seen:
    walk = account.whole if account.whole.pages[1:] else account.limited
    if walk.complete and len(walk.pages) == 1:
        raise UnseenError("The list has one page.")
    if walk.failure is not None:
        where = f"page {len(walk.pages) + 1}"
        return differs(f"{where} was {meant(walk.failure)}")
    found = ids(walk.records())
    repeated = len(found) - len(set(found))
    lengths = [len(page.body["next_cursor"]) for page in walk.pages[:-1]]
    return holds_if(
        not repeated and not walk.looping,
        f"{count(len(walk.pages), 'page')}, cursors of {span(lengths)} characters; "
        f"{count(len(found), 'record')}, {repeated} of them twice",
    )


@fact(
    "An invalid cursor gets a 400.",
    "After a 400, the connector reads the account again from its first page, once.",
)
def cursor_refused(account: Account) -> Seen:
    _unfailing(account, account.whole)
    answer = _provoked(account, ("next_cursor", "not-a-cursor"))
    return holds_if(answer.status == 400, f"{answer}")  # noqa: PLR2004


def _provoked(account: Account, param: tuple[str, object]) -> Answer:
    """Return the response to an invalid parameter.

    Raises:
        UnseenError: If the list fails without it as well.
    """
    answer = account.page(param)
    if answer.status >= 500:  # noqa: PLR2004
        records(account.page())
    return answer


def _compare(walk: Walk, account: Account, limit: int, *, pages: bool = True) -> Seen:
    """Compare a list that was requested with a limit with the list without one."""
    where = f"limit={limit}"
    _unfailing(account, account.whole)
    if walk.failure is not None:
        return differs(f"{where}: page {len(walk.pages) + 1} was {meant(walk.failure)}")
    found, expected = set(ids(walk.records())), set(ids(account.whole.records()))
    comparable = walk.complete or account.whole.complete or expected <= found or found <= expected
    if not comparable:
        raise UnseenError("The lists have too many pages to compare them.")
    missing = len(expected - found) if walk.complete else 0
    further = len(found - expected) if account.whole.complete else 0
    text = f"{where}: {count(len(walk.pages), 'page')} of {span(walk.sizes)}, "
    text += f"{missing} ids missing, {further} new" if missing or further else "the same ids"
    if not walk.complete or not account.whole.complete:
        text += " as far as read"
    largest = max(walk.sizes)
    if pages and (largest > limit or (largest < limit and len(walk.sizes) > 1)):
        return differs(f"{text}; {'it is ignored' if largest > limit else 'it is cut'}")
    return holds_if(not missing and not further and not walk.looping, text)


@fact(
    "A small limit returns the same ids on more pages; Customer.io has a single page.",
    "The connector sends page_size as limit; reads with and without it confirm a deletion.",
    "leave page_size empty",
)
def limit(account: Account) -> Seen:
    if len(account.segments) < 2:  # noqa: PLR2004
        raise UnseenError("The account has less than two segments.")
    pages = account.integration != _ONE_PAGE
    return _compare(account.limited, account, account.small_limit, pages=pages)


@fact(
    "The vendor's documented page size returns the same ids.",
    "The connector reads accounts of these integrations with it, in fewer requests.",
    "page_size: a smaller value",
)
def documented_page_size(account: Account) -> Seen:
    size = account.vendor.page_size if account.vendor else None
    if size is None:
        raise UnseenError("The connector asks for none with this integration.")
    return _compare(account.walk(MAX_PAGES, ("limit", size)), account, size)


@fact(
    "A limit above the vendor's maximum gets a 400 or 422, or the list stays complete.",
    "After a 400 or 422, the connector sends no limit; a cut page could end the list early.",
    "page_size: at most the vendor's maximum",
)
def limit_above_maximum(account: Account) -> Seen:
    maximum = _MAXIMA.get(account.integration or "")
    if maximum is None:
        raise UnseenError("The vendor documents no maximum.")
    _unfailing(account, account.whole)
    known = len(account.segments)
    answer = _provoked(account, ("limit", maximum + 1))
    where = f"limit={maximum + 1}: {answer}"
    if entries(answer) is None:
        return holds_if(answer.status in _REFUSED, where)
    size, cursor = len(records(answer)), answer.body.get("next_cursor")
    text = f"{where}, {size} of {count(known, 'record')}, next_cursor is {type_name(cursor)}"
    return holds_if(bool(cursor) or size >= known, text)


@fact(
    "is_partial_response is false or missing on the last page.",
    "If it is true there, the connector infers no deletions for the account.",
)
def partial_response(account: Account) -> Seen:
    if not account.whole.complete:
        raise UnseenError("The last page was not reached.")
    marks = [_flag(page.body, "is_partial_response") for page in account.whole.pages]
    text = f"{marks[-1]} on the last page; {tally(marks)}"
    return holds_if(marks[-1] in ("false", "missing"), text)


def _flag(body: Record, name: str) -> str:
    return str(body[name]).lower() if kind(body, name) == "boolean" else kind(body, name)


@fact(
    "Two reads in a row have the same segments in the same order.",
    "Most vendors page by number, so a shift hides a record: two reads confirm each deletion.",
)
def same_order(account: Account) -> Seen:
    first, second = (ids(walk.records(FEW_PAGES)) for walk in _twice(account))
    if first == second:
        return holds_if(True, f"{count(len(first), 'record')}, the same")  # noqa: FBT003
    on_one = len(set(first) ^ set(second))
    return differs(f"{on_one} on one read only" if on_one else "in another order")


@fact(
    "Two reads in a row have the same values, in remote_data too.",
    "Each sync emits a value that changes with each read.",
    "deselect the column remote_data",
)
def same_values(account: Account) -> Seen:
    first, second = (walk.records(FEW_PAGES) for walk in _twice(account))
    before = dict(zip(ids(first), first, strict=True))
    pairs = [
        (before[id_], record)
        for id_, record in zip(ids(second), second, strict=True)
        if id_ in before
    ]
    in_data = sum(old.get("remote_data") != new.get("remote_data") for old, new in pairs)
    changed = sum(old != new for old, new in pairs)
    text = f"{changed} of {count(len(pairs), 'record')} changed, {in_data} of them in remote_data"
    return holds_if(not changed, text)


def _twice(account: Account) -> tuple[Walk, Walk]:
    _unfailing(account, account.whole, account.again)
    return account.whole, account.again


def _unfailing(account: Account, *walks: Walk) -> None:
    """Require that there are segments, and that no page failed or led back.

    Raises:
        UnseenError: If this is not the case.
    """
    _ = account.segments
    for walk in walks:
        if walk.failure is not None:
            raise UnseenError(f"Page {len(walk.pages) + 1} was {walk.failure}.")
        if walk.looping:
            raise UnseenError("A cursor came back.")
