"""Facts that Truto and the vendors document about each integration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKETING_AUTOMATION = "marketing-automation"

Paging = Literal["page", "offset", "cursor"]


@dataclass(frozen=True)
class Integration:
    """One integration, and how its vendor pages.

    Attributes:
        label: Its usual name.
        authentication_method: How a customer connects it.
        paging: `page` is a page number and `offset` a number of records, so both shift if
            records are added or removed during a read. `cursor` is the last record of the
            previous page, so it does not shift.
        default_page_size: Records per page without `limit`; None for the whole list.
        max_page_size: The largest accepted `limit`; None for no maximum.
        limit_error: The body of the vendor's 400 for a `limit` above the maximum; None if the
            vendor uses its maximum instead.
        no_segments_error: The body of the vendor's 404 if an account has no segments; None if the
            vendor returns an empty list.
        has_workspaces: Whether it has workspaces.
        requires_workspace: Whether segments can be read only one workspace at a time.
        category: Truto's category.
    """

    label: str
    authentication_method: str
    paging: Paging
    default_page_size: int | None
    max_page_size: int | None
    limit_error: Mapping[str, Any] | None = None
    no_segments_error: Mapping[str, Any] | None = None
    has_workspaces: bool = False
    requires_workspace: bool = False
    category: str = MARKETING_AUTOMATION


_ACTIVECAMPAIGN_404 = {
    "errors": [{"title": "Not Found", "detail": "No segments found", "status": 404}]
}
_BREVO_400 = {"code": "out_of_range", "message": "Limit exceeds max value"}
_KLAVIYO_400 = {
    "errors": [
        {
            "status": 400,
            "code": "invalid",
            "detail": "Page size must be an integer between 1 and 10.",
            "source": {"parameter": "page[size]"},
        }
    ]
}

INTEGRATIONS: Mapping[str, Integration] = {
    "activecampaign": Integration(
        "ActiveCampaign", "api_key", "page", 20, 10_000, no_segments_error=_ACTIVECAMPAIGN_404
    ),
    "beehiiv": Integration(
        "Beehiiv", "api_key", "page", 10, 100, has_workspaces=True, requires_workspace=True
    ),
    "brevo": Integration("Brevo", "api_key", "offset", 10, 50, _BREVO_400, has_workspaces=True),
    "customerio": Integration("Customer.io", "api_key", "offset", None, None, has_workspaces=True),
    "flodesk": Integration("Flodesk", "oauth2", "page", 20, 100),
    "klaviyo": Integration("Klaviyo", "oauth2", "cursor", 10, 10, _KLAVIYO_400),
    "mailerlite": Integration("MailerLite", "api_key", "page", 25, None),
}
"""The seven integrations, by Truto's names. Customer.io has a single page, of any length."""


def integration(name: str) -> Integration:
    """Look up an integration; any other than the seven is a CRM with offsets."""
    return INTEGRATIONS.get(name) or Integration(
        name.title(), "oauth2", "offset", 20, 100, category="crm"
    )
