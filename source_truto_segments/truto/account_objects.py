"""Turn Truto's description of an integrated account into a record.

Only selected fields are copied: an account's `context` has the customer's own settings and secrets,
and can exceed 100 kB. Nothing from it leaves this module.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.responses import (
    MalformedResponseError,
    Page,
    parse_object,
    parse_page,
)

_COLUMNS = (
    *("tenant_id", "status", "authentication_method", "is_sandbox", "region"),
    *("created_at", "updated_at"),
)
# The key for whether the account changes the unified models. It is not a column.
HAS_OVERRIDE = "has_override"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_FORBIDDEN_ERROR = ("resource", "method", "missing_scopes", "occurred_at")
_MAX_SCOPES = 100


def is_account_id(value: object) -> TypeGuard[str]:
    """Return whether a value can be an account's ID, so that it can be part of a path."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def parse_account_list(content: bytes, selects: Callable[[Mapping[str, Any]], bool]) -> Page:
    """Parse a page of the environment's list.

    Args:
        content: The body.
        selects: Returns whether an entry, as Truto sent it, becomes a record.

    Raises:
        MalformedResponseError: If the body is not a list envelope.
    """
    page = parse_page(content)
    records: list[dict[str, Any]] = []
    left_out: list[Mapping[str, Any]] = []
    for entry in page.records:
        if selects(entry):
            records.append(account_record(entry))
        else:
            integration = integration_of(entry)
            named = {"integration": integration["name"], "integration_label": label_of(integration)}
            left_out.append({"id": entry["id"], "tenant_id": entry.get("tenant_id"), **named})
    return replace(page, records=records, left_out=left_out)


def parse_account(content: bytes, account_id: str) -> Page:
    """Parse the object of one account as a page of one record.

    Raises:
        MalformedResponseError: If the body is not an account, or is another account.
    """
    entry = parse_object(content)
    found = entry.get("id")
    if not isinstance(found, str):
        raise MalformedResponseError("the response is not an integrated account: it has no id")
    if found.lower() != account_id:
        raise MalformedResponseError("the response is another integrated account")
    return Page([account_record(entry)], None, may_have_nul=True)


def account_record(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an account, as Truto sent it, as a record of `integrated_accounts`."""
    integration = integration_of(entry)
    account_id = entry.get("id")
    forbidden, names = entry.get("last_forbidden_error"), _FORBIDDEN_ERROR
    return {
        **{name: entry.get(name) for name in _COLUMNS},
        "id": account_id.lower() if isinstance(account_id, str) else account_id,
        "integration": integration["name"],
        HAS_OVERRIDE: bool(entry.get("unified_model_override")),
        "integration_label": label_of(integration),
        "last_error": excerpt(entry.get("last_error")) or None,
        "last_forbidden_error": {n: _bounded(forbidden[n]) for n in names if n in forbidden}
        if isinstance(forbidden, Mapping)
        else None,
    }


def _bounded(value: Any) -> Any:
    """Return a part of an error, cut and masked for a column."""
    if isinstance(value, list):
        return [excerpt(entry) for entry in value[:_MAX_SCOPES]]
    return excerpt(value) if isinstance(value, str | Mapping) else value


def integration_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an account's integration as an object whose `name` is None if it is missing."""
    integration = entry.get("integration")
    integration = integration if isinstance(integration, Mapping) else {"name": integration}
    name = integration.get("name")
    return {**integration, "name": name if isinstance(name, str) else None}


def label_of(integration: Mapping[str, Any]) -> Any:
    """Return an integration's label, its name for people; None if it has none."""
    settings = integration.get("config")
    return integration.get("label") or (
        settings.get("label") if isinstance(settings, Mapping) else None
    )
