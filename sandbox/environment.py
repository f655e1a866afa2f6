"""The content of the sandbox: a Truto environment, and the integrated accounts in it."""

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
"""It is distinctive, so that tests can search for it in places where it must not appear."""

CONTEXT_SECRET = "context-secret-"  # noqa: S105 - valid nowhere
"""The start of every secret in an account's `context`, for the same purpose."""

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
"""Leaves out the key."""


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

    Any attribute can be changed while the sandbox runs.

    Attributes:
        id: The integrated account's id, a UUID.
        vendor: Truto's name of the integration.
        segments: The unified records, served as they are. The sandbox indexes them and does not
            copy them, so a sequence can make them on demand.
        tenant_id: The customer it belongs to.
        status: Truto's name of the status; requests are refused unless it is `active`.
        heals_on_request: Whether such a request succeeds instead, and makes the account `active`.
        is_sandbox: As Truto shows it, like the fields down to `context`.
        created_at: A date in one of the two forms that Truto uses.
        updated_at: A date in the other form.
        last_error: The account's last error; None leaves it out.
        last_forbidden_error: `resource`, `method`, `missing_scopes` and `occurred_at` of the
            vendor's last 403; None leaves it out.
        label: The integration's label; None for its usual one.
        label_in_config: Whether the label is in `integration.config` instead of `integration`.
        category: The integration's category; None for marketing automation if it is one of the
            seven, and for another category if not.
        authentication_method: None for the integration's usual method.
        region: The region in which Truto stores its data.
        environment_id: The environment it belongs to.
        unified_model_override: The account's changes to the unified models; None leaves it out.
        context: The customer's own settings and secrets.
        workspaces: The segments of each workspace, by its id.
        workspace_names: The names of workspaces; a workspace without one is named by its id.
        requires_workspace: Whether requests for segments need `workspace[id]`. Beehiiv always
            requires it.
        default_page_size: Records per page without `limit`; None for the vendor's default.
        max_page_size: The largest accepted `limit`; None for the vendor's maximum.
        oversized: The effect of a larger `limit`. `reject`: a 400. `cut`: smaller pages. `end`:
            Truto takes the first smaller page for the last one. `skip`: Truto advances by `limit`
            records, although the page is smaller. None for the vendor's behavior, or for `cut` if
            `max_page_size` is set.
        on_page: Called in the server's thread after each page of segments, with the account and
            the number of pages of that list that were served so far. It can change the account,
            for records that appear or disappear during a read.
        latency: Seconds before each response; None for the environment's latency.
        form: The form of `result`: a list, an object keyed by id, or a bare record if a page has
            just one.
        empty_pages: The number of empty pages with a cursor before each page.
        loop: `cursor`: the first page's cursor comes back forever. `page`: the first page comes
            back forever, with a new cursor each time. `empty`: only empty pages, with a new
            cursor each time. Loops affect segments only.
        cursor_style: `special` cursors contain characters with a meaning in URLs and JSON, `long`
            ones have thousands of characters.
        last_cursor: The cursor that marks the end of the list: null, an empty string or no key.
        cursors_expire: Whether every cursor has expired by the time it comes back.
        partial: Whether `is_partial_response` is set in responses; `inner` sets it in those that
            have a next page.
        vendor_limit: The vendor's own budget for this account.
        faults: The faults of this account, which happen once the token is accepted.
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
        """Return what is documented about its integration."""
        return integration(self.vendor)

    @property
    def supports_segments(self) -> bool:
        """Return whether the integration has segments at all."""
        return bool(self.vendor in INTEGRATIONS or self.segments or self.workspaces)

    @property
    def needs_workspace(self) -> bool:
        """Return whether segments can be read only one workspace at a time."""
        return self.requires_workspace or self.integration.requires_workspace

    @property
    def has_workspaces(self) -> bool:
        """Return whether the integration has workspaces at all."""
        return self.needs_workspace or self.integration.has_workspaces or bool(self.workspaces)

    def page_size(self, limit: int | None) -> int | None:
        """Return the number of records per page for a `limit`; None for the whole list."""
        default = self.default_page_size or self.integration.default_page_size
        maximum = self._max_page_size()
        if default is None or maximum is None:
            return default and (limit or default)
        return min(limit or default, maximum)

    def limit_error(self, limit: int | None) -> Mapping[str, Any] | None:
        """Return the body of the vendor's 400 for a `limit` that it rejects; None for any other."""
        maximum = self._max_page_size()
        if limit is None or maximum is None or limit <= maximum:
            return None
        if self.oversized == "reject":
            return {"message": f"limit must be at most {maximum}"}
        is_vendors_own = self.oversized is None and self.max_page_size is None
        return self.integration.limit_error if is_vendors_own else None

    def _max_page_size(self) -> int | None:
        documented = self.integration.max_page_size
        # If a test makes the default pages larger than the vendor's maximum, they set the maximum.
        return self.max_page_size or (documented and max(documented, self.default_page_size or 0))


@dataclass
class Environment:
    """One Truto environment: the accounts that an API token can see.

    `accounts` is a plain list that can be changed while the sandbox runs. Looking up an account
    stays fast with thousands of them.

    Attributes:
        accounts: The integrated accounts, in the order of the list.
        token: The API token that Truto accepts.
        latency: Seconds before each response, except Truto's own errors and redirects.
        token_limit: Truto's limit for the token; None for no limit.
        account_limit: Truto's limit for each account; None for no limit.
        retry_after: Seconds that Truto's 429 asks to wait.
        faults: The faults of any request, which come before all other checks.
        list_page_size: Accounts per page, by default and at most.
        list_key: The key of the records in the list of accounts.
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
        """Look up an account by its id."""
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
