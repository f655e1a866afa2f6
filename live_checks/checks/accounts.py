"""Facts about the integrated accounts: the object, the list, its limit and its filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from live_checks.account import ACCOUNTS, Account, UnseenError, entries, ids, records
from live_checks.facts import FACTS, Fact, Seen, differs, fact, holds_if, meant
from live_checks.forms import count, date_form, is_text, kind, tally, type_name
from source_truto_segments.truto.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# An id that no account, tenant or tag has.
MADE_UP = "00000000-0000-4000-8000-000000000000"
_FILTERS_ITSELF = "The filter only saves requests: the connector filters the list itself, too."


def _mistakes(entry: Any) -> list[str]:
    """Return how an account differs from the form that the connector reads."""
    if not isinstance(entry, dict):
        return [f"an entry is {type_name(entry)}"]
    integration = entry.get("integration")
    parts = {
        "id": entry,
        "status": entry,
        "name": integration if isinstance(integration, dict) else {},
    }
    found = [
        f"{name.replace('name', 'integration.name')} is {kind(part, name)}"
        for name, part in parts.items()
        if not is_text(part.get(name))
    ]
    dates = {name: entry.get(name) for name in ("created_at", "updated_at")}
    return found + [
        f"{name} has an unknown form"
        for name, value in dates.items()
        if value is not None and date_form(value) is None
    ]


@fact(
    "An account is an object with the requested id, status, integration.name and dates.",
    "The connector takes the stream integrated_accounts, messages and page sizes from it.",
)
def account_object(account: Account) -> Seen:
    answer = meant(account.entry)
    if not answer.good:
        return differs(f"{answer}")
    mistakes = _mistakes(answer.body)
    if not mistakes and answer.body["id"].lower() != account.id:
        mistakes = ["its id is another one"]
    dates = (answer.body.get(name) for name in ("created_at", "updated_at"))
    forms = tally(date_form(date) or type_name(date) for date in dates)
    return holds_if(not mistakes, "; ".join(mistakes) or f"as expected; dates: {forms}")


@fact(
    "The list of accounts is an object with result or results: a list of such objects.",
    "The connector skips an entry without id or integration; another form fails the mode all.",
    "additional_accounts: These accounts",
)
def accounts_list(account: Account) -> Seen:
    answer = meant(account.api.get(ACCOUNTS, ("limit", 100)))
    listed = answer.body.get("result", answer.body.get("results")) if answer.good else None
    if not isinstance(listed, list):
        return differs(f"{answer}, the list is {type_name(listed)}")
    mistakes = tally(mistake for entry in listed for mistake in _mistakes(entry))
    return holds_if(
        not mistakes,
        f"{count(len(listed), 'account')} in {answer.size:,} bytes; {mistakes or 'as expected'}",
    )


@fact(
    "The list of accounts takes limit, and its cursor leads to the next accounts.",
    "The connector reads the list in pages, because an entry can have 100 kB.",
    "additional_accounts: These accounts",
)
def accounts_limit(account: Account) -> Seen:
    answer = meant(account.api.get(ACCOUNTS, ("limit", 1)))
    found = entries(answer)
    if found is None or len(found) != 1:
        return differs(f"{answer}, {count(len(found or []), 'account')} for limit=1")
    cursor = answer.body.get("next_cursor")
    if not cursor:
        if len(entries(account.api.get(ACCOUNTS, ("limit", 2))) or []) > 1:
            return differs("no cursor, although there are more accounts")
        raise UnseenError("The environment has one account.")
    following = meant(account.api.get(ACCOUNTS, ("limit", 1), ("next_cursor", cursor)))
    if entries(following) is None:
        return differs(f"the second page was {following}")
    same = ids(records(answer)) == ids(records(following))
    return holds_if(not same, f"the second page has {'the same' if same else 'another'} account")


def _add_filter(
    name: str, value_of: Callable[[Mapping[str, Any]], Any], others: tuple[str, ...], follows: str
) -> None:
    """Add the fact that the list takes a filter, with the account's own value and another one."""

    def check(account: Account) -> Seen:
        own = value_of(account.entry.body) if account.entry.good else None
        if not is_text(own):
            raise UnseenError("The account's own value is not known.")
        other = next(value for value in others if value != own)
        texts = []
        holds = True
        for label, value in (("its own", own), ("another", other)):
            answer = meant(account.api.get(ACCOUNTS, ("limit", 100), (name, value)))
            if entries(answer) is None:
                return differs(f"{label}: {answer}")
            found = records(answer)
            matching = sum(value_of(entry) == value for entry in found)
            holds = holds and matching == len(found) and (bool(found) or value == other)
            texts.append(f"{label}: {matching} of {len(found)} match")
        return holds_if(holds, "; ".join(texts))

    relied_on = f"The list of accounts takes the filter {name}."
    FACTS.append(Fact(f"filter_{name.replace('.', '_')}", relied_on, follows, "", check))


def _integration_name(entry: Mapping[str, Any]) -> Any:
    integration = entry.get("integration")
    return integration.get("name") if isinstance(integration, dict) else None


_add_filter(
    "status",
    lambda entry: entry.get("status"),
    ("needs_reauth", "active"),
    "Nothing: the connector reads accounts of every status, and does not send this filter.",
)
_add_filter("integration.name", _integration_name, tuple(VENDORS), _FILTERS_ITSELF)
_add_filter("tenant_id", lambda entry: entry.get("tenant_id"), (MADE_UP,), _FILTERS_ITSELF)
