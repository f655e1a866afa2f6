"""Environments for a demo, and of any size."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sandbox import faults
from sandbox.environment import BEEHIIV, DEFAULT_TOKEN, Account, Environment
from sandbox.limits import VendorLimit
from sandbox.vendors import VENDORS, SegmentSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandbox.limits import Limit

_NAMESPACE = uuid.UUID("6f6a1d0e-5c0b-4b65-9a0c-7d1f4c2e8b11")
# Each row has a vendor, a tenant, a region and a number of segments.
_DEMO = (
    ("klaviyo", "acme", "us", 43),
    ("activecampaign", "globex", "us", 24),
    (BEEHIIV, "initech", "us", 12),
    ("brevo", "umbrella", "eu", 67),
    ("customerio", "hooli", "us", 18),
    ("flodesk", "soylent", "us", 9),
    ("mailerlite", "vandelay", "eu", 31),
)


def demo_environment() -> Environment:
    """Return one account of each of the seven vendors, each of another tenant, with stable ids."""
    return Environment([_demo_account(*row) for row in _DEMO])


def _demo_account(vendor: str, tenant: str, region: str, count: int) -> Account:
    account = Account(_uuid(f"demo/{vendor}"), vendor, tenant_id=tenant, region=region)
    records = list(SegmentSequence(vendor, count))
    if vendor != BEEHIIV:
        account.segments = records
        return account
    daily, weekly = (f"pub_{_uuid(f'demo/{name}')}" for name in ("daily", "weekly"))
    half = count // 2
    account.workspaces = {daily: records[:half], weekly: records[half:]}
    account.workspace_names = {daily: "The Daily Brief", weekly: "The Weekly Digest"}
    return account


def break_account(account: Account, how: str) -> None:
    """Break an account in one of the ways in `BREAKS`."""
    BREAKS[how](account)


def _refuse(account: Account) -> None:
    account.status, account.last_error = "needs_reauth", "The API key was revoked"


def _forbid(account: Account) -> None:
    account.faults.append(faults.scopes_missing("segments:read", times=None))
    account.last_forbidden_error = {
        "resource": "segments",
        "method": "list",
        "missing_scopes": ["segments:read"],
        "occurred_at": "2026-01-01T08:00:00.000Z",
    }


def _throttle(account: Account) -> None:
    account.vendor_limit = VendorLimit(limit=2, window=20.0)


def _empty(account: Account) -> None:
    account.segments, account.workspaces = (), {}


BREAKS: Mapping[str, Callable[[Account], None]] = {
    "refused": _refuse,
    "forbidden": _forbid,
    "throttled": _throttle,
    "empty": _empty,
}
"""The ways to break an account: the vendor no longer accepts its credentials, denies access, allows
two requests in 20 s, or has no segments for it."""


def large_environment(
    accounts: int = 1_000,
    segments: int = 10,
    vendors: Sequence[str] = VENDORS,
    *,
    page_size: int | None = None,
    seed: int = 0,
    token: str = DEFAULT_TOKEN,
    latency: float = 0.0,
    token_limit: Limit | None = None,
    account_limit: Limit | None = None,
) -> Environment:
    """Return many accounts of mixed vendors, whose segments are made on demand.

    Args:
        accounts: The number of accounts.
        segments: The number of segments of each account.
        vendors: The vendors, in turn.
        page_size: Records per page; by default all of an account.
        seed: A different seed makes different data.
        token: The API token.
        latency: Seconds before each response.
        token_limit: Truto's limit for the token; None for no limit.
        account_limit: Truto's limit for each account; None for no limit.

    Raises:
        ValueError: If a vendor is unknown.
    """
    made = []
    for number in range(accounts):
        records = SegmentSequence(vendors[number % len(vendors)], segments, seed, number)
        account = _large_account(records)
        account.default_page_size = page_size or max(segments, 1)
        made.append(account)
    return Environment(
        accounts=made,
        token=token,
        latency=latency,
        token_limit=token_limit,
        account_limit=account_limit,
    )


def _large_account(records: SegmentSequence) -> Account:
    name = f"large/{records.seed}/{records.account}"
    account = Account(
        id=_uuid(name), vendor=records.vendor, tenant_id=f"tenant-{records.account + 1}"
    )
    if records.vendor == BEEHIIV:
        account.workspaces = {f"pub_{_uuid(f'{name}/workspace')}": records}
    else:
        account.segments = records
    return account


def _uuid(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
