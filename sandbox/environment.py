"""What the sandbox holds: a Truto environment, and the integrated accounts in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from sandbox.integrations import INTEGRATIONS, Integration, integration

if TYPE_CHECKING:
    from sandbox.cursors import CursorStyle
    from sandbox.faults import Fault
    from sandbox.limits import Limit, VendorLimit
    from sandbox.request import Request
    from sandbox.responses import Response

DEFAULT_TOKEN = "sandbox-token-4f1d7c9e2b"  # noqa: S105 - valid in the sandbox only
"""Distinctive, so that a test can search for it where it must never appear."""

CONTEXT_SECRET = "context-secret-"  # noqa: S105 - valid nowhere
"""What every secret in an account's `context` begins with, for the same purpose."""

BEEHIIV = "beehiiv"
VENDORS_WITH_WORKSPACES = frozenset(
    name for name, known in INTEGRATIONS.items() if known.has_workspaces
)

Records = Sequence[Mapping[str, Any]]
Form = Literal["list", "keyed", "bare"]
Loop = Literal["cursor", "page", "empty"]
Oversized = Literal["reject", "cut", "end", "skip"]


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""The key is left out."""


def _context() -> dict[str, Any]:
    tokens = {name: f"{CONTEXT_SECRET}{name}-7be1" for name in ("access_token", "refresh_token")}
    return {
        "api_key": f"{CONTEXT_SECRET}api_key-7be1",
        "oauth": {"token": {**tokens, "expires_at": "2026-01-01T00:00:00.000Z"}},
        "company": "Example Ltd",
    }


@dataclass
class Account:
    """One customer's connection to one vendor, and how its API behaves.

    Everything can be changed while the sandbox runs.

    Attributes:
        id: The integrated account's id, a UUID.
        vendor: Truto's name of the integration.
        segments: The unified records, served as they are. Only ever indexed, never copied, so it
            can be a sequence that makes its records on demand.
        tenant_id: The customer it belongs to.
        status: As Truto names it; requests for all but `active` are refused.
        heals_on_request: Whether such a request succeeds instead, and makes the account `active`.
        is_sandbox: As Truto shows it, like the fields down to `context`.
        created_at: A date in one of the two forms that Truto uses.
        updated_at: A date in the other form.
        last_error: Left out if none.
        last_forbidden_error: `resource`, `method`, `missing_scopes` and `occurred_at` of the
            vendor's last 403; left out if none.
        label: The integration's label; none for the usual one.
        label_in_config: Whether the label is in `integration.config` instead of `integration`.
        category: The integration's category; none for marketing automation if it is one of the
            seven, and another category if not.
        authentication_method: None for what is usual for the integration.
        region: Where Truto keeps its data.
        environment_id: The environment it belongs to.
        unified_model_override: The account's changes to the unified models; left out if none.
        context: The customer's own settings and secrets.
        workspaces: The segments of each workspace, by its id.
        workspace_names: Names of workspaces; a workspace without one is named by its id.
        requires_workspace: Whether segments are refused without `workspace[id]`. Beehiiv
            always requires it.
        default_page_size: Records a page without `limit`; none for the vendor's default.
        max_page_size: The most that `limit` can ask for; none for the vendor's maximum.
        oversized: What happens to a larger `limit`. `reject`: a 400. `cut`: the pages are smaller.
            `end`: Truto takes the first smaller page for the last one. `skip`: Truto goes on as
            many records further as `limit` says. None for what the vendor does, and for `cut` if
            a maximum is given.
        on_page: Called after each page of segments with the account and how many pages of that
            list were served so far, in the server's thread. It can change the account, for
            records that come and go during a read.
        latency: Seconds before each response; none for the environment's.
        form: The form of `result`: a list, an object keyed by id, or a bare record where a page
            holds just one.
        empty_pages: How many empty pages with a cursor precede each page.
        loop: `cursor`: the first page's cursor comes back forever. `page`: the first page comes
            back forever, with a new cursor each time. `empty`: only empty pages, with a new
            cursor each time. Loops affect segments only.
        cursor_style: `special` cursors contain characters with a meaning in URLs and JSON, `long`
            ones have thousands of characters.
        last_cursor: What marks the end of the list: null, an empty string or no key at all.
        cursors_expire: Whether every cursor has expired by the time it comes back.
        partial: Whether responses have `is_partial_response` set; `inner` for those that have a
            next page.
        vendor_limit: The vendor's own budget for this account.
        faults: What goes wrong for this account, once the token is accepted.
        custom_fields: Fields that an override adds to the model, by name, as the meta schema
            shows them.
    """

    id: str
    vendor: str
    segments: Records = ()
    _: KW_ONLY
    tenant_id: str = "tenant-1"
    status: str = "active"
    heals_on_request: bool = False
    is_sandbox: bool = False
    created_at: str = "2024-02-12 09:30:00"
    updated_at: str = "2025-06-03T14:05:21.000Z"
    last_error: str | None = None
    last_forbidden_error: Mapping[str, Any] | None = None
    label: str | None = None
    label_in_config: bool = False
    category: str | None = None
    authentication_method: str | None = None
    region: str = "us"
    environment_id: str = "8f0c2d7e-51a4-4b7e-9d38-6a2f1c0b9e44"
    unified_model_override: Mapping[str, Any] | None = None
    context: Mapping[str, Any] = field(default_factory=_context, repr=False)
    workspaces: dict[str, Records] = field(default_factory=dict)
    workspace_names: dict[str, str] = field(default_factory=dict)
    requires_workspace: bool = False
    default_page_size: int | None = None
    max_page_size: int | None = None
    oversized: Oversized | None = None
    on_page: Callable[[Account, int], None] | None = None
    latency: float | None = None
    form: Form = "list"
    empty_pages: int = 0
    loop: Loop | None = None
    cursor_style: CursorStyle = "plain"
    last_cursor: str | Missing | None = None
    cursors_expire: bool = False
    partial: bool | Literal["inner"] = False
    vendor_limit: VendorLimit | None = None
    faults: list[Fault] = field(default_factory=list)
    custom_fields: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def integration(self) -> Integration:
        """What is documented about its integration."""
        return integration(self.vendor)

    @property
    def supports_segments(self) -> bool:
        """Whether the integration has segments at all."""
        return bool(self.vendor in INTEGRATIONS or self.segments or self.workspaces)

    @property
    def needs_workspace(self) -> bool:
        """Whether segments can be read only one workspace at a time."""
        return self.requires_workspace or self.integration.requires_workspace

    @property
    def has_workspaces(self) -> bool:
        """Whether the integration has workspaces at all."""
        return self.needs_workspace or self.integration.has_workspaces or bool(self.workspaces)

    def page_size(self, limit: int | None) -> int | None:
        """Records a page for a `limit`; none for the whole list."""
        default = self.default_page_size or self.integration.default_page_size
        maximum = self._max_page_size()
        if default is None or maximum is None:
            return default and (limit or default)
        return min(limit or default, maximum)

    def limit_error(self, limit: int | None) -> Mapping[str, Any] | None:
        """The vendor's body of the 400 for a `limit` that it does not accept; none for others."""
        maximum = self._max_page_size()
        if limit is None or maximum is None or limit <= maximum:
            return None
        if self.oversized == "reject":
            return {"message": f"limit must be at most {maximum}"}
        is_vendors_own = self.oversized is None and self.max_page_size is None
        return self.integration.limit_error if is_vendors_own else None

    def _max_page_size(self) -> int | None:
        documented = self.integration.max_page_size
        # Where a test makes the default pages larger than the vendor's, `limit` can follow.
        return self.max_page_size or (documented and max(documented, self.default_page_size or 0))


@dataclass
class Environment:
    """One Truto environment: the accounts that an API token can see.

    `accounts` is a plain list that can be changed while the sandbox runs; looking an account up
    stays fast for thousands of them.

    Attributes:
        accounts: The integrated accounts, in the order of their listing.
        token: The API token that is accepted.
        latency: Seconds before each response that needs more than Truto itself.
        token_limit: Truto's limit for the token; none for no limit.
        account_limit: Truto's limit for each account; none for no limit.
        retry_after: Seconds that Truto's 429 asks to wait.
        faults: What goes wrong for any request, before anything else is checked.
        list_page_size: Accounts a page, by default and at most.
        list_key: The key that holds the records of the account listing.
        alter: Changes each response before it is sent, for an API that is not as documented.
            Called in the server's thread.
    """

    accounts: list[Account] = field(default_factory=list)
    token: str = DEFAULT_TOKEN
    latency: float = 0.0
    token_limit: Limit | None = None
    account_limit: Limit | None = None
    retry_after: int = 10
    faults: list[Fault] = field(default_factory=list)
    list_page_size: int = 100
    list_key: Literal["result", "results"] = "result"
    alter: Callable[[Request, Response], Response] | None = None
    _index: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def find(self, account_id: str) -> Account | None:
        """Look an account up by its id."""
        account = self._find_indexed(account_id)
        if account is None:
            self._index = {account.id: n for n, account in enumerate(list(self.accounts))}
            account = self._find_indexed(account_id)
        return account

    def _find_indexed(self, account_id: str) -> Account | None:
        number = self._index.get(account_id)
        # The list may have changed since it was indexed.
        if number is None or number >= len(self.accounts):
            return None
        account = self.accounts[number]
        return account if account.id == account_id else None
