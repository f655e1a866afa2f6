"""What is known of each vendor. A new vendor is one row here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vendor:
    """A marketing tool, as Truto's unified API reads it.

    Attributes:
        name: Truto's name of the integration.
        label: Its name for people.
        has_workspaces: Whether Truto documents workspaces for it.
        requires_workspace: Whether it returns segments only for one workspace at a time.
        tags_path: Where a vendor's own record lists its tags; empty if it has none.
        not_found_is_empty: Whether its 404 on the first page means that there are no segments.
    """

    name: str
    label: str
    has_workspaces: bool = False
    requires_workspace: bool = False
    tags_path: tuple[str, ...] = ()
    not_found_is_empty: bool = False


# Truto, API reference, "Segments" and "Workspaces".
VENDORS = {
    vendor.name: vendor
    for vendor in (
        # ActiveCampaign's API reference: 404 if an account has no saved segment.
        Vendor("activecampaign", "ActiveCampaign", not_found_is_empty=True),
        Vendor("beehiiv", "Beehiiv", has_workspaces=True, requires_workspace=True),
        Vendor("brevo", "Brevo", has_workspaces=True),
        Vendor("customerio", "Customer.io", has_workspaces=True),
        Vendor("flodesk", "Flodesk"),
        Vendor("klaviyo", "Klaviyo", tags_path=("relationships", "tags", "data")),
        Vendor("mailerlite", "MailerLite"),
    )
}


def vendor_of(integration: str | None) -> Vendor | None:
    """Return the vendor of an integration, by Truto's name for it; None if it is not one of these.

    Args:
        integration: The name, in any case; None if it is not known.
    """
    return VENDORS.get((integration or "").lower())
