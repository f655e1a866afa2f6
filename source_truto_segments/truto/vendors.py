"""What the connector knows of each vendor, a row for each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vendor:
    """A marketing tool, as Truto's unified API reads it.

    Attributes:
        name: Truto's name for the integration.
        label: Its name for people.
        has_workspaces: Whether Truto documents workspaces for it.
        requires_workspace: Whether it returns segments only for one workspace at a time.
        page_size: The records to request per page: the vendor's documented maximum, up to 100. None
            if it does not allow larger pages than its default.
        tags_path: The path to the tags in a vendor's own record; empty if it has none.
        not_found_is_empty: Whether its 404 on the first page means that there are no segments.
    """

    name: str
    label: str
    has_workspaces: bool = False
    requires_workspace: bool = False
    page_size: int | None = None
    tags_path: tuple[str, ...] = ()
    not_found_is_empty: bool = False


# Source: Truto's API reference, "Segments" and "Workspaces". The page sizes are from the vendors'
# API references, few of which say what happens above the maximum.
VENDORS = {
    vendor.name: vendor
    for vendor in (
        # page_size: 20 by default, up to 10,000. 404 if an account has no saved segment.
        Vendor("activecampaign", "ActiveCampaign", page_size=100, not_found_is_empty=True),
        # limit: 10 by default, up to 100.
        Vendor("beehiiv", "Beehiiv", has_workspaces=True, requires_workspace=True, page_size=100),
        # limit: 10 by default, up to 50; 400 above.
        Vendor("brevo", "Brevo", has_workspaces=True, page_size=50),
        # No page size: one response has everything.
        Vendor("customerio", "Customer.io", has_workspaces=True),
        # per_page: 20 by default, up to 100.
        Vendor("flodesk", "Flodesk", page_size=100),
        # page[size]: 10 by default and at most; 400 above.
        Vendor("klaviyo", "Klaviyo", tags_path=("relationships", "tags", "data")),
        # limit: 25 by default. The maximum is not documented; other clients request 50.
        Vendor("mailerlite", "MailerLite", page_size=50),
    )
}


def vendor_of(integration: str | None) -> Vendor | None:
    """Return the vendor of an integration; None if it is not one of these.

    Args:
        integration: Truto's name for it, or its label, in any case and with any punctuation, as
            in Customer.io; None if it is not known.
    """
    name = (integration or "").lower()
    return VENDORS.get(name) or VENDORS.get("".join(filter(str.isalnum, name)))
