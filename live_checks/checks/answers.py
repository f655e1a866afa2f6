"""Facts about parameters, headers, errors and the other endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from live_checks.account import META, SEGMENTS, Account, UnseenError, entries, ids, records
from live_checks.api import RETRIED, TRUTO, VENDOR
from live_checks.checks.accounts import MADE_UP
from live_checks.facts import Outcome, Seen, differs, fact, holds_if, meant
from live_checks.forms import count, is_text, kind, tally, type_name

if TYPE_CHECKING:
    from live_checks.api import Answer

_BUDGET = {
    "ratelimit-limit": re.compile(r"\d+(\s*;\s*w=\d+(\.\d+)?)?"),
    "ratelimit-remaining": re.compile(r"-?\d+"),
    "ratelimit-reset": re.compile(r"\d{1,15}(\.\d+)?"),
}
_FIRST_TIMESTAMP = 1_000_000_000


def _without(account: Account, hidden: tuple[str, ...], *params: tuple[str, object]) -> Seen:
    """Check that a page lacks these fields, and nothing else."""
    before = records(account.first)
    if not before:
        raise UnseenError("The first page has no segments.")
    answer = meant(account.page(*params))
    if entries(answer) is None:
        return differs(f"{answer}")
    after = records(answer)
    left = tally(name for name in hidden for record in after if name in record)
    same = ids(before) == ids(after)
    text = f"{answer.size:,} bytes, {account.first.size:,} before"
    text += "" if same else "; other ids"
    return holds_if(same and not left, f"{text}; still there: {left}" if left else text)


@fact(
    "truto_ignore_remote_data=true leaves out remote_data and nothing else.",
    "Without the column remote_data, responses are much smaller.",
)
def ignore_remote_data(account: Account) -> Seen:
    return _without(account, ("remote_data",), ("truto_ignore_remote_data", "true"))


@fact(
    "truto_exclude_fields[] leaves out each of these fields and nothing else.",
    "The connector does not request columns that are not selected.",
)
def exclude_fields(account: Account) -> Seen:
    hidden = ("name", "status")
    return _without(account, hidden, *(("truto_exclude_fields[]", name) for name in hidden))


@fact(
    "tags[id] filters the segments of Klaviyo, and other vendors ignore it.",
    "With tag_id, the connector also drops segments whose remote_data has other tags.",
    "leave tag_id empty",
)
def tag_filter(account: Account) -> Seen:
    before = records(account.first)
    if not before:
        raise UnseenError("The first page has no segments.")
    answer = meant(account.page(("tags[id]", MADE_UP)))
    found = entries(answer)
    text = f"{answer} with a made-up tag, {len(found or [])} of {count(len(before), 'record')}"
    if account.integration != "klaviyo":
        return holds_if(found is not None and ids(records(answer)) == ids(before), text)
    tagged = sum(map(_has_tags, before))
    accepted = found == [] or (found is None and answer.speaker == VENDOR)
    return holds_if(accepted, f"{text}; remote_data has tags in {tagged}")


def _has_tags(record: dict[str, Any]) -> bool:
    value: Any = record
    for name in ("remote_data", "relationships", "tags", "data"):
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, list)


@fact(
    "ratelimit-limit is a number with or without ;w=, ratelimit-remaining a number, and "
    "ratelimit-reset seconds or a timestamp.",
    "Once the vendor's budget is used up, the account waits; other forms are ignored.",
)
def budget_headers(account: Account) -> Seen:
    answer = meant(account.first)
    present = [name for name in _BUDGET if answer.good and name in answer.headers]
    if not present:
        raise UnseenError("The response has no such header.")
    wrong = [name for name in present if not _BUDGET[name].fullmatch(answer.headers[name].strip())]
    if wrong:
        return differs(f"of another form: {', '.join(wrong)}")
    window = " with a window" if "w=" in answer.headers.get("ratelimit-limit", "") else ""
    reset = float(answer.headers.get("ratelimit-reset", 0))
    unit = ", the reset as a timestamp" if reset >= _FIRST_TIMESTAMP else ""
    return holds_if(True, f"{', '.join(present)}{window}{unit}")  # noqa: FBT003


def _refusal(answer: Answer, status: int) -> Seen:
    """Check that a response is Truto's own error with this status.

    Raises:
        UnseenError: If it is a rate limit or a temporary failure.
    """
    if answer.status in RETRIED:
        raise UnseenError(f"The answer was {answer}.")
    body = answer.body if isinstance(answer.body, dict) else {}
    forms = {"statusCode": "integer", "error": "string", "message": "string"}
    wrong = [f"{name} is {kind(body, name)}" for name in forms if kind(body, name) != forms[name]]
    return holds_if(
        answer.status == status and answer.speaker == TRUTO and not wrong,
        "; ".join([f"{answer}", *wrong]),
    )


@fact(
    "A wrong token gets Truto's 401, with statusCode, error and message.",
    "The sync ends at once and reports that Truto rejected the API token.",
)
def wrong_token(account: Account) -> Seen:
    answer = account.api.get(SEGMENTS, account.key, token="not-a-token")  # noqa: S106 - nobody's
    return _refusal(answer, 401)


@fact(
    "An unknown account gets Truto's 404.",
    "The connector reports that Truto has no such account.",
)
def unknown_account(account: Account) -> Seen:
    return _refusal(account.api.get(SEGMENTS, ("integrated_account_id", MADE_UP)), 404)


@fact(
    'A resource that an integration lacks gets Truto\'s 400 with "not support".',
    "Such an account has no workspaces; another 400 fails the stream workspaces.",
    "deselect the stream workspaces",
)
def not_supported(account: Account) -> Seen:
    if account.vendor is None or account.vendor.has_workspaces:
        raise UnseenError("Only an integration without workspaces shows it.")
    answer = meant(account.workspaces)
    seen = _refusal(answer, 400)
    if seen.outcome is Outcome.HOLDS and "not support" not in answer.body["message"].lower():
        return differs(f"{seen.text}, in other words")
    return seen


@fact(
    "Beehiiv, Brevo and Customer.io list workspaces, each with an id and a name.",
    "The stream workspaces has them, and the segments of Beehiiv are read by workspace.",
    "workspace_id",
)
def workspaces(account: Account) -> Seen:
    if account.vendor is None or not account.vendor.has_workspaces:
        raise UnseenError("This integration has none.")
    answer = meant(account.workspaces)
    found = entries(answer)
    if found is None:
        return differs(f"{answer}")
    if not found:
        raise UnseenError("The account has none.")
    wrong = [
        f"{name} is {kind(entry, name)}" if isinstance(entry, dict) else type_name(entry)
        for entry in found
        for name in ("id", "name")
        if not isinstance(entry, dict) or not is_text(entry.get(name))
    ]
    return holds_if(not wrong, "; ".join([count(len(found), "workspace"), *set(wrong)]))


@fact(
    "segments/meta/list has schema.properties, with an object for each field that states its type.",
    "Fields beyond the unified ones become columns when Airbyte fetches the schema.",
)
def model(account: Account) -> Seen:
    answer = meant(account.api.get(META, account.key))
    value: Any = answer.body
    for name in ("schema", "properties"):
        value = value.get(name) if isinstance(value, dict) else None
    if not answer.good or not isinstance(value, dict):
        return differs(f"{answer} without schema.properties")
    typed = sum(isinstance(field, dict) and is_text(field.get("type")) for field in value.values())
    return holds_if(typed == len(value) > 0, f"{count(len(value), 'field')}, {typed} with a type")
