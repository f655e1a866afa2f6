"""Integrated accounts as Truto's admin API shows them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from sandbox import cursors, responses
from sandbox.cursors import Position
from sandbox.pages import cut_page, parse_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.environment import Account, Environment
    from sandbox.request import Request
    from sandbox.responses import Response

_SCOPE = "accounts"


def list_accounts(request: Request, environment: Environment) -> Response:
    """Respond with a page of the accounts that match the request's filters."""
    limit, refusal = parse_limit(request)
    cursor = request.param("next_cursor")
    position = cursors.read(cursor, _SCOPE) if cursor else Position()
    if refusal is not None:
        return refusal
    if position is None:
        return responses.truto_error(400, "Invalid next_cursor")
    size = min(limit or environment.list_page_size, environment.list_page_size)
    page, end = cut_page(environment.accounts, position.index, size, _filter(request))
    return responses.ok(
        {
            environment.list_key: [account_object(account) for account in page],
            "next_cursor": None if end is None else cursors.write(Position(end), _SCOPE),
            "limit": size,
        }
    )


def account_object(account: Account) -> dict[str, Any]:
    """Return an account with everything that Truto shows of it."""
    known = account.integration
    label = {"label": account.label or known.label}
    optional = {
        "last_error": account.last_error,
        "last_forbidden_error": account.last_forbidden_error,
        "unified_model_override": account.unified_model_override,
    }
    return {
        "id": account.id,
        "tenant_id": account.tenant_id,
        "environment_id": account.environment_id,
        "status": account.status,
        "is_sandbox": account.is_sandbox,
        "region": account.region,
        "authentication_method": account.authentication_method or known.authentication_method,
        "integration": {
            "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{account.vendor}.integration")),
            "name": account.vendor,
            "category": account.category or known.category,
            **({"config": label} if account.label_in_config else label),
        },
        "context": account.context,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _filter(request: Request) -> Callable[[Account], bool]:
    statuses = request.params("status")
    integrations = request.params("integration.name")
    tenants = request.params("tenant_id")

    def matches(account: Account) -> bool:
        return (
            (not statuses or account.status in statuses)
            and (not integrations or account.vendor in integrations)
            and (not tenants or account.tenant_id in tenants)
        )

    return matches
