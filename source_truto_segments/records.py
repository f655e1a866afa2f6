"""Records coerced to the selected columns, with the changes that lost something.

Truto does not validate what its mappings return. What can be expressed in a column's type without
loss is converted; what cannot becomes null, and the change is named in the record's `meta.changes`
as the Airbyte protocol has it.
"""

import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeGuard

from airbyte_protocol_dataclasses.models import AirbyteRecordMessageMetaChange, Change, Reason

from source_truto_segments import values
from source_truto_segments.changes import DELETED_AT, UPDATED_AT
from source_truto_segments.responses import Page, error_text
from source_truto_segments.values import CoercionError

# Added by the connector itself; all other columns are asked of Truto.
CONNECTOR_COLUMNS = frozenset({"integrated_account_id", "workspace_id", UPDATED_AT, DELETED_AT})
# The key and the cursor field: read and emitted whatever the catalog leaves out.
REQUIRED_COLUMNS = frozenset({"integrated_account_id", "id", UPDATED_AT})

# What the CDK can still write out. orjson reads 1,024 levels, but writes 254.
_MAX_DEPTH = 200
# Snowflake and Redshift take records of 16 MB; the message around the record takes some of it.
MAX_RECORD_BYTES = 16_000_000

_ACCOUNT_COLUMNS = (
    *("tenant_id", "status", "authentication_method", "is_sandbox", "region"),
    *("created_at", "updated_at"),
)
_FORBIDDEN_ERROR = ("resource", "method", "missing_scopes", "occurred_at")

_change = AirbyteRecordMessageMetaChange
_Changes = list[AirbyteRecordMessageMetaChange]


@cache
def load_schema(stream_name: str) -> dict[str, Any]:
    """The JSON schema of a stream, with the columns that the connector adds."""
    content = pkgutil.get_data("source_truto_segments", f"schemas/{stream_name}.json")
    if content is None:
        raise FileNotFoundError(f"source_truto_segments/schemas/{stream_name}.json")
    schema: dict[str, Any] = json.loads(content)
    return schema


@dataclass(frozen=True)
class ColumnSelection:
    """The columns of a stream that a configured catalog selects.

    Attributes:
        converters: How to coerce the value of each known column.
        excluded: The columns of the stream's schema that are not selected.
        included: All that may be emitted where something is excluded.
    """

    converters: tuple[tuple[str, Callable[[Any], Any]], ...]
    excluded: frozenset[str]
    included: frozenset[str]

    @classmethod
    def from_schema(
        cls, stream_name: str, schema: Mapping[str, Any] | None = None
    ) -> "ColumnSelection":
        """Reads a configured catalog's schema; one without properties selects everything."""
        model = load_schema(stream_name)["properties"]
        selected = (schema or {}).get("properties")
        selected = selected if selected and isinstance(selected, Mapping) else model
        # The model's own types hold whatever a catalog says.
        known = {**selected, **model}
        excluded = frozenset(model) - frozenset(selected) - REQUIRED_COLUMNS
        converters = (
            (name, _converter(known[name]))
            for name in known
            if name not in excluded and name not in CONNECTOR_COLUMNS
        )
        return cls(
            converters=tuple((name, convert) for name, convert in converters if convert),
            excluded=excluded,
            included=frozenset(known) - excluded,
        )

    @property
    def has_deletions(self) -> bool:
        """Whether a tombstone can be told from a row."""
        return DELETED_AT not in self.excluded

    def query_params(self, *, needs_remote_data: bool = False) -> dict[str, Any]:
        """The query parameters that keep Truto from sending what is not selected.

        Args:
            needs_remote_data: Whether the connector itself looks into the vendor's record.
        """
        fields = sorted(self.excluded - {"remote_data"} - CONNECTOR_COLUMNS)
        is_ignored = "remote_data" in self.excluded and not needs_remote_data
        ignored = {"truto_ignore_remote_data": "true"} if is_ignored else {}
        return {**ignored, **({"truto_exclude_fields[]": fields} if fields else {})}

    def project(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record without nulls, and without what is not selected.

        Fields that are in no schema pass, unless some column was left out: then the user wants
        just what the catalog names.
        """
        if not self.excluded:
            return {name: value for name, value in record.items() if value is not None}
        included = self.included
        return {
            name: value for name, value in record.items() if value is not None and name in included
        }


def coerce_record(
    record: Mapping[str, Any], columns: ColumnSelection, page: Page | None = None
) -> tuple[dict[str, Any], _Changes]:
    """Coerces a record to its columns.

    Lossless conversions are just made. Fields that are in no schema pass through untouched.
    Coercing a record twice changes nothing the second time.

    Args:
        record: The record as Truto gave it.
        columns: The selected columns.
        page: The page that the record stood on, if it was one; it tells what must be looked for.

    Returns:
        The coerced record and the changes that lost something, one for each field.
    """
    coerced = dict(record)
    # The connector alone says that a row is gone.
    coerced.pop(DELETED_AT, None)
    coerced.pop(UPDATED_AT, None)
    changes: _Changes = []
    if page is not None:
        _make_serializable(coerced, changes, page)
    for name, convert in columns.converters:
        value = coerced.get(name)
        if value is None:
            continue
        try:
            coerced[name] = convert(value)
        except CoercionError:
            coerced[name] = None
            changes.append(_change(name, Change.NULLED, Reason.SOURCE_SERIALIZATION_ERROR))
        else:
            if convert is values.date_time and values.is_truncated(value):
                reason = Reason.SOURCE_FIELD_SIZE_LIMITATION
                changes.append(_change(name, Change.TRUNCATED, reason))
    return coerced, changes


def account_record(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An account of Truto's as a record of `integrated_accounts`.

    Column by column: an account's `context` holds the customer's own settings and secrets.
    """
    integration = integration_of(entry)
    settings, account_id = integration.get("config"), entry.get("id")
    label = integration.get("label") or (settings.get("label") if _is_object(settings) else None)
    forbidden, names = entry.get("last_forbidden_error"), _FORBIDDEN_ERROR
    return {
        **{name: entry.get(name) for name in _ACCOUNT_COLUMNS},
        "id": account_id.lower() if isinstance(account_id, str) else account_id,
        "integration": integration["name"],
        "integration_label": label,
        "last_error": error_text(entry.get("last_error")) or None,
        "last_forbidden_error": {name: forbidden[name] for name in names if name in forbidden}
        if _is_object(forbidden)
        else None,
    }


def integration_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An account's integration as an object with a `name`, which is None if there is none."""
    integration = entry.get("integration")
    integration = integration if _is_object(integration) else {"name": integration}
    name = integration.get("name")
    return {**integration, "name": name if isinstance(name, str) else None}


def _make_serializable(record: dict[str, Any], changes: _Changes, page: Page) -> None:
    """Takes out what a message or a destination cannot hold; the page tells whether to look."""
    if page.digest is None:
        for name, value in record.items():
            if _is_too_deep(value):
                record[name] = None
                field, reason = values.without_nul(name), Reason.SOURCE_SERIALIZATION_ERROR
                changes.append(_change(field, Change.NULLED, reason))
    if page.may_have_nul:
        for name, value in list(record.items()):
            clean_name, clean = values.without_nul(name), values.without_nul(value)
            if clean_name != name:
                del record[name]
            elif clean == value:
                continue
            record[clean_name] = clean
            reason = Reason.SOURCE_SERIALIZATION_ERROR
            changes.append(_change(clean_name, Change.TRUNCATED, reason))
    # An escape such as \u00e9 shrinks when it is written again; no record grows beyond its page.
    if page.size > MAX_RECORD_BYTES and len(values.serialize(record)) > MAX_RECORD_BYTES:
        record["remote_data"] = None
        reason = Reason.SOURCE_RECORD_SIZE_LIMITATION
        changes.append(_change("remote_data", Change.NULLED, reason))


def _converter(schema: Any) -> Callable[[Any], Any] | None:
    """What coerces a value to a column; None where any value fits."""
    if not isinstance(schema, Mapping):
        return None
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    names = [name for name in names if name != "null"]
    if len(names) != 1 or not isinstance(names[0], str):
        return None
    if names == ["string"] and schema.get("format") == "date-time":
        return values.date_time
    return _CONVERTERS.get(names[0])


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "string": values.string,
    "boolean": values.boolean,
    "number": values.number,
    "integer": values.integer,
    "object": values.object_,
    "array": values.array,
}


def _is_too_deep(value: Any) -> bool:
    """Whether a value is nested in more levels than can be written out."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)
