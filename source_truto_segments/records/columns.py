"""The columns of a row: which ones are selected, and how to convert values to their types.

Truto does not validate what its mappings return. A value that can be expressed in its column's type
without loss is converted. Any other value becomes null, and the record reports the change.
"""

import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from source_truto_segments.records import values
from source_truto_segments.records.values import CoercionError

# Airbyte's convention: a destination that deduplicates deletes (or marks) a row whose
# _ab_cdc_deleted_at is set.
UPDATED_AT = "_ab_cdc_updated_at"
DELETED_AT = "_ab_cdc_deleted_at"

# The connector adds these columns; it requests all others from Truto. If an override adds a
# workspace_id and the connector has none, the override's is kept.
CONNECTOR_COLUMNS = frozenset({"integrated_account_id", "workspace_id", UPDATED_AT, DELETED_AT})
_UNCOERCED = CONNECTOR_COLUMNS - {"workspace_id"}
# The key and the cursor field, which are emitted even if the catalog leaves them out.
REQUIRED_COLUMNS = frozenset({"integrated_account_id", "id", UPDATED_AT})

# The most levels that can be written: orjson reads 1,024, but writes 254.
_MAX_DEPTH = 200
# Snowflake and Redshift accept records of 16 MB, of which the message around the record takes some.
MAX_RECORD_BYTES = 16_000_000

_NULLED, _TRUNCATED = "NULLED", "TRUNCATED"
_NOT_SERIALIZABLE = "SOURCE_SERIALIZATION_ERROR"


@cache
def load_schema(stream_name: str) -> dict[str, Any]:
    """Load the JSON schema of a stream, with the columns that the connector adds."""
    content = pkgutil.get_data("source_truto_segments", f"schemas/{stream_name}.json")
    if content is None:
        raise FileNotFoundError(f"source_truto_segments/schemas/{stream_name}.json")
    schema: dict[str, Any] = json.loads(content)
    return schema


class FieldChange(NamedTuple):
    """A field of a record that lost something, with the values of the protocol's `meta.changes`."""

    field: str
    change: str
    reason: str


# A record with the selected columns, and what it lost.
Row: TypeAlias = tuple[dict[str, Any], list[FieldChange]]


@dataclass(frozen=True)
class ColumnSelection:
    """The columns of a stream that a configured catalog selects.

    Attributes:
        converters: How to coerce the value of each known column.
        excluded: The columns of the stream's schema that are not selected.
        included: The columns of a record; None for all fields that it has.
    """

    converters: tuple[tuple[str, Callable[[Any], Any]], ...]
    excluded: frozenset[str]
    included: frozenset[str] | None

    @classmethod
    def from_schema(
        cls, stream_name: str, schema: Mapping[str, Any] | None = None
    ) -> "ColumnSelection":
        """Read a configured catalog's schema; one without properties selects everything."""
        model = load_schema(stream_name)["properties"]
        named = (schema or {}).get("properties")
        selected = named if named and isinstance(named, Mapping) else model
        # The model's own types take precedence over those in the catalog.
        known = {**selected, **model}
        excluded = frozenset(model) - frozenset(selected) - REQUIRED_COLUMNS
        converters = (
            (name, _converter(known[name]))
            for name in known
            if name not in excluded and name not in _UNCOERCED
        )
        return cls(
            converters=tuple((name, convert) for name, convert in converters if convert),
            excluded=excluded,
            included=frozenset(known) - excluded if selected is named else None,
        )

    @property
    def has_deletions(self) -> bool:
        """Whether the columns can express a tombstone."""
        return DELETED_AT not in self.excluded

    def query_params(self, *, needs_remote_data: bool = False) -> dict[str, Any]:
        """Return the query parameters that keep Truto from sending what is not selected.

        Args:
            needs_remote_data: Whether the connector itself needs the vendor's record.
        """
        fields = sorted(self.excluded - {"remote_data"} - CONNECTOR_COLUMNS)
        is_ignored = "remote_data" in self.excluded and not needs_remote_data
        ignored = {"truto_ignore_remote_data": "true"} if is_ignored else {}
        return {**ignored, **({"truto_exclude_fields[]": fields} if fields else {})}

    def project(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record without nulls and without fields that are not in the catalog."""
        included = self.included
        if included is None:
            return {name: value for name, value in record.items() if value is not None}
        return {
            name: value for name, value in record.items() if value is not None and name in included
        }


def coerce_record(
    record: Mapping[str, Any],
    columns: ColumnSelection,
    *,
    may_be_deep: bool = False,
    may_have_nul: bool = False,
    max_size: int = 0,
) -> tuple[dict[str, Any], list[FieldChange]]:
    """Coerce a record to its columns.

    Lossless conversions are not reported. Fields that are in no schema stay unchanged. Coercing a
    record twice changes nothing the second time.

    Args:
        record: The selected columns of the record, as Truto sent them.
        columns: The selected columns.
        may_be_deep: Whether a value may be nested too deeply to be written.
        may_have_nul: Whether a text may contain U+0000.
        max_size: The most bytes that the record can have: those of its page.

    Returns:
        The coerced record and the changes that lost something, one for each field.
    """
    coerced = dict(record)
    # Only the connector sets these two.
    coerced.pop(DELETED_AT, None)
    coerced.pop(UPDATED_AT, None)
    changes: list[FieldChange] = []
    if may_be_deep:
        _remove_deep_values(coerced, changes)
    if may_have_nul:
        _replace_nul(coerced, changes)
    # Escapes such as \u00e9 shrink when they are written again, so no record outgrows its page.
    if max_size > MAX_RECORD_BYTES and len(values.serialize(coerced)) > MAX_RECORD_BYTES:
        coerced["remote_data"] = None
        changes.append(FieldChange("remote_data", _NULLED, "SOURCE_RECORD_SIZE_LIMITATION"))
    for name, convert in columns.converters:
        value = coerced.get(name)
        if value is None:
            continue
        try:
            coerced[name] = convert(value)
        except CoercionError:
            coerced[name] = None
            changes.append(FieldChange(name, _NULLED, _NOT_SERIALIZABLE))
        else:
            if convert is values.date_time and values.is_truncated(value):
                changes.append(FieldChange(name, _TRUNCATED, "SOURCE_FIELD_SIZE_LIMITATION"))
    return coerced, changes


def _remove_deep_values(record: dict[str, Any], changes: list[FieldChange]) -> None:
    for name, value in record.items():
        if _is_too_deep(value):
            record[name] = None
            changes.append(FieldChange(values.without_nul(name), _NULLED, _NOT_SERIALIZABLE))


def _replace_nul(record: dict[str, Any], changes: list[FieldChange]) -> None:
    for name, value in list(record.items()):
        clean_name, clean = values.without_nul(name), values.without_nul(value)
        if clean_name != name:
            del record[name]
        elif clean == value:
            continue
        record[clean_name] = clean
        changes.append(FieldChange(clean_name, _TRUNCATED, _NOT_SERIALIZABLE))


def _converter(schema: Any) -> Callable[[Any], Any] | None:
    """Return the function that coerces values to a column; None if any value fits."""
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
    """Return whether a value has more levels than can be written."""
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
