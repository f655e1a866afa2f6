"""What the sandbox holds: an environment of Truto's, and the integrated accounts in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from sandbox.limits import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT, Limit, VendorLimit

if TYPE_CHECKING:
    from sandbox.cursors import CursorStyle
    from sandbox.faults import Fault

DEFAULT_TOKEN = "sandbox-token-4f1d7c9e2b"  # noqa: S105 - opens nothing but the sandbox
"""Distinctive, so that a test can look for it where it must never appear."""

BEEHIIV = "beehiiv"
VENDORS_WITH_WORKSPACES = frozenset({BEEHIIV, "brevo", "customerio"})

Records = Sequence[Mapping[str, Any]]
Form = Literal["list", "keyed", "bare"]
Loop = Literal["cursor", "page", "empty"]


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""The key is left out altogether."""


@dataclass(frozen=True)
class PageSizes:
    """Records a page where none are asked for, and at most; none for the whole list."""

    default: int | None
    maximum: int | None


PAGE_SIZES: Mapping[str, PageSizes] = {
    "activecampaign": PageSizes(100, 10_000),
    BEEHIIV: PageSizes(10, 100),
    "brevo": PageSizes(10, 50),
    "customerio": PageSizes(None, None),
    "flodesk": PageSizes(20, 100),
    "klaviyo": PageSizes(10, 10),
    "mailerlite": PageSizes(25, 250),
}
_OTHER_PAGE_SIZES = PageSizes(20, 100)


@dataclass
class Account:
    """One customer's connection to one vendor, and how its API behaves.

    Everything can be changed while the sandbox runs.

    Attributes:
        id: The integrated account's id, a UUID.
        vendor: Truto's name of the integration.
        segments: The unified records, served as they are. Only ever indexed, never copied, so it
            can be a sequence that makes its records when they are asked for.
        tenant_id: The customer it belongs to.
        status: As Truto names it; all but `active` are refused.
        is_sandbox: As the account listing shows it.
        created_at: As the account listing shows it.
        updated_at: As the account listing shows it.
        last_error: As the account listing shows it; left out if none.
        workspaces: The segments of each workspace, by its id.
        workspace_names: Names of workspaces; the id stands in for a missing one.
        requires_workspace: Whether segments are refused without `workspace[id]`. Beehiiv
            always requires it.
        default_page_size: Records a page without `limit`; none for what is usual for the vendor.
        max_page_size: The most that `limit` can ask for; none for what is usual for the vendor.
        latency: Seconds before each answer; none for the environment's.
        form: The form of `result`: a list, an object keyed by id, or a bare record wherever a
            page holds just one.
        empty_pages: So many empty pages with a cursor come before each page.
        loop: `cursor`: the first page's cursor comes back for ever. `page`: the first page comes
            back for ever, under ever new cursors. `empty`: nothing but empty pages, under ever
            new cursors. Loops concern segments only.
        cursor_style: `odd` cursors hold characters that have a meaning in URLs and JSON, `long`
            ones have thousands of characters.
        last_cursor: How the end of the list is said: null, an empty string or no key at all.
        cursors_expire: Whether every cursor has expired by the time it comes back.
        partial: Whether answers say `is_partial_response`.
        vendor_limit: The vendor's own budget for this account.
        faults: What goes wrong for this account, once the token has been accepted.
        custom_fields: Fields an override adds to the model: name to its entry in the meta schema.
    """

    id: str
    vendor: str
    segments: Records = ()
    tenant_id: str = "tenant-1"
    status: str = "active"
    is_sandbox: bool = False
    created_at: str = "2024-02-12T09:30:00.000Z"
    updated_at: str = "2025-06-03T14:05:21.000Z"
    last_error: str | None = None
    workspaces: dict[str, Records] = field(default_factory=dict)
    workspace_names: dict[str, str] = field(default_factory=dict)
    requires_workspace: bool = False
    default_page_size: int | None = None
    max_page_size: int | None = None
    latency: float | None = None
    form: Form = "list"
    empty_pages: int = 0
    loop: Loop | None = None
    cursor_style: CursorStyle = "plain"
    last_cursor: str | Missing | None = None
    cursors_expire: bool = False
    partial: bool = False
    vendor_limit: VendorLimit | None = None
    faults: list[Fault] = field(default_factory=list)
    custom_fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    cursor_generation: int = field(default=0, init=False, repr=False)

    @property
    def needs_workspace(self) -> bool:
        """Whether segments can be had only for one workspace at a time."""
        return self.requires_workspace or self.vendor == BEEHIIV

    @property
    def has_workspaces(self) -> bool:
        """Whether the integration has workspaces at all."""
        return self.needs_workspace or self.vendor in VENDORS_WITH_WORKSPACES

    def expire_cursors(self) -> None:
        """Make every cursor handed out so far one that the vendor refuses."""
        self.cursor_generation += 1

    def page_size(self, asked_for: int | None) -> int | None:
        """Records a page for a `limit`; none for the whole list."""
        usual = PAGE_SIZES.get(self.vendor, _OTHER_PAGE_SIZES)
        default = self.default_page_size or usual.default
        if default is None:
            return self.max_page_size
        maximum = self.max_page_size or max(usual.maximum or default, default)
        return min(asked_for or default, maximum)


@dataclass
class Environment:
    """One environment of Truto's: the accounts that an API token can see.

    `accounts` is a plain list that can be changed while the sandbox runs; looking an account up
    stays quick for thousands of them.

    Attributes:
        accounts: The integrated accounts, in the order they are listed in.
        token: The API token that is accepted.
        latency: Seconds before each answer that needs more than Truto itself.
        token_limit: Truto's limit for the token; none for no limit.
        account_limit: Truto's limit for each account; none for no limit.
        retry_after: Seconds that Truto's 429 asks for.
        faults: What goes wrong for any request, before anything else is looked at.
        list_page_size: Accounts a page, by default and at most.
        list_key: The key that the account listing has its records under.
    """

    TRUTO_TOKEN_LIMIT: ClassVar[Limit] = TRUTO_TOKEN_LIMIT
    TRUTO_ACCOUNT_LIMIT: ClassVar[Limit] = TRUTO_ACCOUNT_LIMIT

    accounts: list[Account] = field(default_factory=list)
    token: str = DEFAULT_TOKEN
    latency: float = 0.0
    token_limit: Limit | None = None
    account_limit: Limit | None = None
    retry_after: int = 10
    faults: list[Fault] = field(default_factory=list)
    list_page_size: int = 100
    list_key: Literal["result", "results"] = "result"
    _places: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def find(self, account_id: str) -> Account | None:
        """Look an account up by its id."""
        account = self._at_known_place(account_id)
        if account is None:
            self._places = {account.id: n for n, account in enumerate(list(self.accounts))}
            account = self._at_known_place(account_id)
        return account

    def _at_known_place(self, account_id: str) -> Account | None:
        place = self._places.get(account_id)
        # The list can have changed since the places were noted.
        if place is None or place >= len(self.accounts):
            return None
        account = self.accounts[place]
        return account if account.id == account_id else None
