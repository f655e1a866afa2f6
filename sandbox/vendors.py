"""Segments of the seven vendors, as Truto's unified API returns them.

The data is made up and always the same: a record depends only on its vendor, its seed, its account
and its index. `remote_data` has the form that the vendor documents. The unified fields have values
if Truto fills them for this vendor. Dates are in the vendor's own form, because Truto does not
validate what its mappings return.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, overload

Record = dict[str, Any]

_NAMES = (
    "Engaged last 30 days",
    "Engaged last 90 days",
    "VIP customers",
    "Newsletter subscribers",
    "Abandoned cart",
    "First-time buyers",
    "Repeat buyers",
    "Lapsed customers (180 days)",
    "Win-back candidates",
    "Never purchased",
    "High lifetime value",
    "Opened, not clicked",
    "Trial users",
    "Churn risk",
    "Birthday this month",
    "Black Friday shoppers",
    "Loyalty programme: gold",
    "Loyalty programme: silver",
    "Webinar registrants",
    "Product reviewers",
    "SMS subscribers",
    "Unengaged: sunset",
    "Wholesale accounts",
    "Café & restaurant owners",
    "Kundinnen und Kunden in München",
    "Potential purchasers",
    "Coupon users",
    "Referral programme",
    "Signed up, no order",
    "Ordered in the last 7 days",
)
_REGIONS = ("EU", "US", "UK", "APAC", "DACH", "LATAM", "Nordics", "ANZ")
_COLORS = ("#D3CFF8", "#F8D9CF", "#CFF8E1", "#F8F3CF", "#CFE6F8")
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
_FIRST_DAY = datetime(2021, 3, 1, 8, 0, tzinfo=timezone.utc)
_DAYS_OF_CREATION = 1_200
_DAYS_OF_CHANGES = 400
_SECONDS_A_DAY = 86_400
_ONE_IN_TEN = 10


class _Facts:
    """The choices that make one record, the same each time."""

    def __init__(self, vendor: str, index: int, seed: int, account: int) -> None:
        key = f"{vendor}/{seed}/{account}/{index}".encode("utf-8", "surrogatepass")
        self._entropy = int.from_bytes(hashlib.blake2b(key, digest_size=48).digest(), "big")
        self.index = index
        self.account = account
        self.name = self._make_name()
        self.created = _FIRST_DAY + timedelta(
            days=self.number(_DAYS_OF_CREATION), seconds=self.number(_SECONDS_A_DAY)
        )
        self.updated = self.created + timedelta(
            days=self.number(_DAYS_OF_CHANGES), seconds=self.number(_SECONDS_A_DAY)
        )

    def number(self, below: int) -> int:
        """Return the next number, from 0 to less than `below`."""
        self._entropy, number = divmod(self._entropy, below)
        return number

    def text(self, length: int) -> str:
        """Return letters and digits, as in a short id."""
        return "".join(_ALPHABET[self.number(len(_ALPHABET))] for _ in range(length))

    def hex(self, length: int) -> str:
        """Return hexadecimal digits."""
        return f"{self.number(16**length):0{length}x}"

    def one_in(self, chances: int) -> bool:
        """Return True for about one record in so many."""
        return self.number(chances) == 0

    def _make_name(self) -> str:
        # 7 and the number of names have no common divisor, so no name repeats before all are used.
        name = _NAMES[(self.index * 7 + self.account) % len(_NAMES)]
        cycle = self.index // len(_NAMES)
        if cycle == 0:
            return name
        region = _REGIONS[(cycle - 1) % len(_REGIONS)]
        edition = (cycle - 1) // len(_REGIONS)
        return f"{name} - {region}" + (f" {edition + 1}" if edition else "")


def segments(vendor: str, count: int, seed: int = 0, account: int = 0) -> list[Record]:
    """Make the first `count` segments of an account of a vendor.

    Args:
        vendor: Truto's name of the vendor, one of `VENDORS`.
        count: The number of segments.
        seed: A different seed makes different data.
        account: A different account of the same vendor has different data.

    Raises:
        ValueError: If the vendor is unknown.
    """
    return list(SegmentSequence(vendor, count, seed, account))


@dataclass(frozen=True)
class SegmentSequence(Sequence[Record]):
    """Segments that are made on each access and not stored.

    Raises:
        ValueError: If the vendor is unknown.
    """

    vendor: str
    length: int
    seed: int = 0
    account: int = 0

    def __post_init__(self) -> None:
        if self.vendor not in _MAKERS:
            raise ValueError(f"Unknown vendor {self.vendor!r}; known are {', '.join(VENDORS)}")

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self.length))]
        number = index + self.length if index < 0 else index
        if not 0 <= number < self.length:
            raise IndexError(index)
        return _MAKERS[self.vendor](_Facts(self.vendor, number, self.seed, self.account))


def _activecampaign(facts: _Facts) -> Record:
    number = str(100 + facts.index)
    uuid = "-".join(facts.hex(length) for length in (8, 4, 4, 4, 12))
    segment_id = number if facts.one_in(3) else uuid
    created, updated = _iso_ms(facts.created), _iso_ms(facts.updated)
    return {
        "id": segment_id,
        "name": facts.name,
        "description": None,
        "created_at": created,
        "updated_at": updated,
        "remote_data": {
            "id": segment_id,
            "type": "segment",
            "attributes": {
                "segment_id": number,
                "category": "contact",
                "name": facts.name,
                "counts": {
                    "last_total": {"count": facts.number(20_000), "last_total_updated": updated}
                },
                "created_date": created,
                "updated_date": updated,
            },
        },
    }


_BEEHIIV_STATUS = {"completed": "active", "pending": "pending", "processing": "processing"}


def _beehiiv(facts: _Facts) -> Record:
    segment_id = f"seg_{facts.hex(8)}-{facts.hex(4)}-{facts.hex(4)}"
    status = "completed" if not facts.one_in(8) else ("pending", "processing")[facts.number(2)]
    calculated = int(facts.updated.timestamp())
    return {
        "id": segment_id,
        "name": facts.name,
        "status": _BEEHIIV_STATUS[status],
        "last_calculated_at": calculated,
        "remote_data": {
            "id": segment_id,
            "name": facts.name,
            "type": ("dynamic", "static", "manual")[facts.number(3)],
            "last_calculated": calculated,
            "total_results": facts.number(5_000),
            "status": status,
            "active": status == "completed",
        },
    }


def _brevo(facts: _Facts) -> Record:
    number = 50 + facts.index
    updated = _iso_z(facts.updated)
    return {
        "id": str(number),
        "name": facts.name,
        "updated_at": updated,
        "remote_data": {
            "id": number,
            "segmentName": facts.name,
            "categoryName": ("Marketing", "Sales", "Lifecycle")[facts.number(3)],
            "updatedAt": updated,
        },
    }


def _customerio(facts: _Facts) -> Record:
    number = 1 + facts.index
    state = "finished" if not facts.one_in(_ONE_IN_TEN) else ("events", "build")[facts.number(2)]
    description = f"People in “{facts.name}”" if not facts.one_in(4) else ""
    return {
        "id": str(number),
        "name": facts.name,
        "description": description,
        "status": "active" if state == "finished" else "processing",
        "remote_data": {
            "id": number,
            "deduplicate_id": f"{number}:{int(facts.updated.timestamp())}",
            "name": facts.name,
            "description": description,
            "state": state,
            "progress": None,
            "type": ("manual", "dynamic")[facts.number(2)],
            "tags": None,
            "created_at": int(facts.created.timestamp()),
            "updated_at": int(facts.updated.timestamp()),
        },
    }


def _flodesk(facts: _Facts) -> Record:
    segment_id = f"{int(facts.created.timestamp()):08x}{facts.hex(16)}"
    created = _iso_ms(facts.created)
    return {
        "id": segment_id,
        "name": facts.name,
        "created_at": created,
        "remote_data": {
            "id": segment_id,
            "name": facts.name,
            "total_active_subscribers": facts.number(3_000),
            "created_at": created,
            "color": _COLORS[facts.number(len(_COLORS))],
        },
    }


def _klaviyo(facts: _Facts) -> Record:
    segment_id = facts.text(6)
    created, updated = facts.created.isoformat(), facts.updated.isoformat()
    is_processing = facts.one_in(_ONE_IN_TEN)
    is_active = is_processing or not facts.one_in(_ONE_IN_TEN)
    is_starred = facts.one_in(5)
    address = f"https://a.klaviyo.com/api/segments/{segment_id}"
    return {
        "id": segment_id,
        "name": facts.name,
        "description": None if facts.one_in(3) else f"People in “{facts.name}”",
        "status": "processing" if is_processing else ("active" if is_active else "inactive"),
        "is_starred": is_starred,
        "created_at": created,
        "updated_at": updated,
        "last_calculated_at": None,
        "remote_data": {
            "type": "segment",
            "id": segment_id,
            "attributes": {
                "name": facts.name,
                "definition": None if facts.one_in(4) else _klaviyo_definition(facts),
                "created": created,
                "updated": updated,
                "is_active": is_active,
                "is_processing": is_processing,
                "is_starred": is_starred,
            },
            "relationships": {
                "profiles": {"links": {"related": f"{address}/profiles/"}},
                "tags": {
                    "data": [{"type": "tag", "id": tag_id} for tag_id in _klaviyo_tags(facts)],
                    "links": {"related": f"{address}/tags/"},
                },
            },
            "links": {"self": f"{address}/"},
        },
    }


KLAVIYO_TAGS = (
    "9b0e1b5c-3b0a-4f3a-8d0e-0a3f5d1c7e01",
    "9b0e1b5c-3b0a-4f3a-8d0e-0a3f5d1c7e02",
    "9b0e1b5c-3b0a-4f3a-8d0e-0a3f5d1c7e03",
)
"""The tags of Klaviyo's segments, each of which has none, one or several of them."""


def _klaviyo_tags(facts: _Facts) -> list[str]:
    return [tag_id for tag_id in KLAVIYO_TAGS if facts.one_in(3)]


def _klaviyo_definition(facts: _Facts) -> Record:
    condition = {
        "type": "profile-metric",
        "metric_id": facts.text(6),
        "measurement": "count",
        "measurement_filter": {
            "type": "numeric",
            "operator": "greater-than",
            "value": facts.number(5),
        },
        "timeframe_filter": {
            "type": "date",
            "operator": "in-the-last",
            "unit": "day",
            "quantity": 30 * (1 + facts.number(6)),
        },
    }
    return {"condition_groups": [{"conditions": [condition]}]}


def _mailerlite(facts: _Facts) -> Record:
    segment_id = str(1 + facts.index)
    created = f"{facts.created:%Y-%m-%d %H:%M:%S}"
    return {
        "id": segment_id,
        "name": facts.name,
        "description": None,
        "status": None,
        "is_starred": None,
        "created_at": created,
        "updated_at": None,
        "last_calculated_at": None,
        "remote_data": {
            "id": segment_id,
            "name": facts.name,
            "total": facts.number(4_000),
            "open_rate": _rate(facts.number(10_000)),
            "click_rate": _rate(facts.number(2_000)),
            "created_at": created,
        },
    }


def workspace_data(vendor: str, workspace_id: str, name: str) -> tuple[str | None, Record]:
    """Return the `created_at` and the `remote_data` of a vendor's workspace."""
    facts = _Facts(f"{vendor}/workspace/{workspace_id}", 0, 0, 0)
    if vendor == "beehiiv":
        created = int(facts.created.timestamp())
        remote_data = {
            "id": workspace_id,
            "name": name,
            "organization_name": name,
            "referral_program_enabled": facts.one_in(2),
            "created": created,
        }
        return _iso_z(facts.created), remote_data
    if vendor == "customerio":
        counts = {"people": facts.number(50_000), "messages_sent": facts.number(90_000)}
        return None, {"id": workspace_id, "name": name, **counts}
    created_at = _iso_ms(facts.created)
    return created_at, {"id": workspace_id, "companyName": name, "createdAt": created_at}


def _rate(per_10_000: int) -> Record:
    return {"float": per_10_000 / 10_000, "string": f"{per_10_000 / 100:g}%"}


def _iso_z(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _iso_ms(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"


_MAKERS: dict[str, Callable[[_Facts], Record]] = {
    "activecampaign": _activecampaign,
    "beehiiv": _beehiiv,
    "brevo": _brevo,
    "customerio": _customerio,
    "flodesk": _flodesk,
    "klaviyo": _klaviyo,
    "mailerlite": _mailerlite,
}

VENDORS = tuple(_MAKERS)
"""Truto's names of the seven vendors."""
