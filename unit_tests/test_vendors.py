"""The vendor of an integration."""

import pytest

from source_truto_segments.truto.vendors import VENDORS, vendor_of


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=str)
def test_names_and_labels(vendor: object) -> None:
    """A vendor is found by its name and by its label, in any case."""
    name, label = getattr(vendor, "name", ""), getattr(vendor, "label", "")
    assert vendor_of(name) is vendor_of(label) is vendor_of(label.upper()) is vendor


@pytest.mark.parametrize("integration", [None, "", "hubspot", "klaviyo2"])
def test_other_integrations(integration: str | None) -> None:
    """An integration that is not known has no vendor."""
    assert vendor_of(integration) is None


def test_names_with_punctuation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that itself has punctuation is found, too."""
    monkeypatch.setitem(VENDORS, "a-b", VENDORS["brevo"])
    assert vendor_of("A-B") is VENDORS["brevo"]
