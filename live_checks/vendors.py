"""The documented page sizes of the vendors, and which of them have workspaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Vendor:
    """What is documented about a vendor.

    Attributes:
        page_size: The page size to ask for; None to ask for none.
        maximum: The largest page size; None if the vendor documents none.
        has_workspaces: Whether it has workspaces.
        requires_workspace: Whether its segments are listed one workspace at a time.
        pages: Whether it has pages at all.
    """

    page_size: int | None = None
    maximum: int | None = None
    has_workspaces: bool = False
    requires_workspace: bool = False
    pages: bool = True


VENDORS: Mapping[str, Vendor] = {
    "activecampaign": Vendor(100, 10_000),
    "beehiiv": Vendor(100, 100, has_workspaces=True, requires_workspace=True),
    "brevo": Vendor(50, 50, has_workspaces=True),
    "customerio": Vendor(has_workspaces=True, pages=False),
    "flodesk": Vendor(100, 100),
    "klaviyo": Vendor(None, 10),
    "mailerlite": Vendor(50),
}
"""The seven vendors, by Truto's names."""
