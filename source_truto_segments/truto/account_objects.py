"""Truto's description of an integrated account, as a record.

It is taken over column by column: an account's `context` holds the customer's own settings and
secrets, and can exceed 100 kB. Nothing of it leaves this module.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

from source_truto_segments.truto.responses import (
    MalformedResponseError,
    Page,
    error_text,
    parse_object,
    parse_page,
)

_COLUMNS = (
    *("tenant_id", "status", "authentication_method", "is_sandbox", "region"),
    *("created_at", "updated_at"),
)
# The key by which a record says whether the account changes the unified models. It is no column.
HAS_OVERRIDE = "has_override"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_FORBIDDEN_ERROR = ("resource", "method", "missing_scopes", "occurred_at")


def is_account_id(value: object) -> TypeGuard[str]:
    """Return whether a value can be an account's ID, and so a part of a path."""
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
    left_out: list[str] = []
    for entry in page.records:
        if selects(entry):
            records.append(account_record(entry))
        else:
            left_out.append(str(entry["id"]).lower())
    return replace(page, records=records, left_out_ids=left_out)


def parse_account(content: bytes, account_id: str) -> Page:
    """Parse the object of one account as a page of one record.

    Raises:
        MalformedResponseError: If the body is not an account, or is another one.
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
    settings, account_id = integration.get("config"), entry.get("id")
    label = integration.get("label") or (
        settings.get("label") if isinstance(settings, Mapping) else None
    )
    forbidden, names = entry.get("last_forbidden_error"), _FORBIDDEN_ERROR
    return {
        **{name: entry.get(name) for name in _COLUMNS},
        "id": account_id.lower() if isinstance(account_id, str) else account_id,
        "integration": integration["name"],
        HAS_OVERRIDE: bool(entry.get("unified_model_override")),
        "integration_label": label,
        "last_error": error_text(entry.get("last_error")) or None,
        "last_forbidden_error": {name: forbidden[name] for name in names if name in forbidden}
        if isinstance(forbidden, Mapping)
        else None,
    }


def integration_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an account's integration as an object with a `name`, None if there is none."""
    integration = entry.get("integration")
    integration = integration if isinstance(integration, Mapping) else {"name": integration}
    name = integration.get("name")
    return {**integration, "name": name if isinstance(name, str) else None}
