"""What Truto and the vendors document about each integration: its name, its pages, its errors."""

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
        label: The name that people know it by.
        authentication_method: How a customer connects it.
        paging: `page` is a page number and `offset` a number of records, so both shift when
            records are added or removed during a read. `cursor` is the record that the page
            before ended with, so it does not.
        default_page_size: Records a page without `limit`; none for the whole list.
        max_page_size: The most that `limit` can ask for; none for no maximum.
        limit_error: The vendor's body of the 400 for a `limit` above the maximum; none if the
            vendor uses its maximum instead.
        no_segments_error: The vendor's body of the 404 where an account has no segments; none if
            the vendor returns an empty list.
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
"""The seven, by Truto's names. Customer.io has one page only, of any length."""


def integration(name: str) -> Integration:
    """Look an integration up; one that is not among the seven is a CRM with offsets."""
    return INTEGRATIONS.get(name) or Integration(
        name.title(), "oauth2", "offset", 20, 100, category="crm"
    )
