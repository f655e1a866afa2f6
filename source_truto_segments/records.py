"""Records made to fit the columns that were asked for, with what had to be changed.

Truto does not validate what its mappings return. What can be said in a column's type without loss
is said so; what cannot becomes null, and the change is named, so that it can go into the record's
`meta.changes` as the Airbyte protocol has it.
"""

import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airbyte_protocol_dataclasses.models import AirbyteRecordMessageMetaChange, Change, Reason

from source_truto_segments import values
from source_truto_segments.values import MisfitError

# Added by the connector itself; all other columns are asked of Truto.
ADDED = ("integrated_account_id", "workspace_id")
# The key and the cursor field: read and emitted whatever the catalog leaves out.
ALWAYS = frozenset({"integrated_account_id", "id", "updated_at"})

# What the CDK can still write out. orjson reads 1,024 levels, but writes 254.
_DEEPEST = 200

_change = AirbyteRecordMessageMetaChange


@lru_cache(maxsize=1)
def segments_schema() -> dict[str, Any]:
    """The JSON schema of the unified model, with the columns that the connector adds."""
    content = pkgutil.get_data("source_truto_segments", "schemas/segments.json")
    if content is None:
        raise FileNotFoundError("source_truto_segments/schemas/segments.json")
    schema: dict[str, Any] = json.loads(content)
    return schema


@dataclass(frozen=True)
class Columns:
    """The columns that a configured catalog asks for.

    Attributes:
        converters: How to make the value of each known column fit.
        left_out: The fields of the unified model that are not asked for.
        named: All that may be emitted where something is left out.
    """

    converters: tuple[tuple[str, Callable[[Any], Any]], ...]
    left_out: frozenset[str]
    named: frozenset[str]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> "Columns":
        """Reads a configured catalog's schema; one without properties asks for everything."""
        model = segments_schema()["properties"]
        named = schema.get("properties")
        asked = named if named and isinstance(named, Mapping) else model
        # The model's own types hold whatever a catalog says: the marks compare its dates.
        known = {**asked, **model}
        left_out = frozenset(model) - frozenset(asked) - ALWAYS
        converters = (
            (name, _converter(known[name]))
            for name in known
            if name not in left_out and name not in ADDED
        )
        return cls(
            converters=tuple((name, convert) for name, convert in converters if convert),
            left_out=left_out,
            named=frozenset(known) - left_out,
        )

    def params(self, *, needs_remote_data: bool) -> dict[str, Any]:
        """The query parameters that keep Truto from sending what is not asked for.

        Args:
            needs_remote_data: Whether the connector itself looks into the vendor's record.
        """
        fields = sorted(self.left_out - {"remote_data"} - frozenset(ADDED))
        is_ignored = "remote_data" in self.left_out and not needs_remote_data
        ignored = {"truto_ignore_remote_data": "true"} if is_ignored else {}
        excluded = {"truto_exclude_fields[]": fields} if fields else {}
        return {**ignored, **excluded}

    def chosen(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record without what was not asked for.

        Fields that nobody knows pass, unless some known field was left out: then the user wants
        just what the catalog names.
        """
        if not self.left_out:
            return record
        return {name: value for name, value in record.items() if name in self.named}


def fit(
    record: Mapping[str, Any], columns: Columns, *, is_plain: bool = True
) -> tuple[dict[str, Any], list[AirbyteRecordMessageMetaChange]]:
    """Makes a record fit its columns.

    Lossless changes are just made. Fields that no column is for pass through untouched. Making a
    record fit twice changes nothing the second time.

    Args:
        record: The unified record as Truto gave it.
        columns: The columns that were asked for.
        is_plain: False if the record may be nested more deeply than can be written out.

    Returns:
        The fitting record and the changes that lost something, one for each field.
    """
    fitting = dict(record)
    changes: list[AirbyteRecordMessageMetaChange] = []
    if not is_plain:
        for name, value in record.items():
            if _is_too_deep(value):
                fitting[name] = None
                changes.append(_change(name, Change.NULLED, Reason.SOURCE_SERIALIZATION_ERROR))
    for name, convert in columns.converters:
        value = fitting.get(name)
        if value is None:
            continue
        try:
            fitting[name] = convert(value)
        except MisfitError:
            fitting[name] = None
            changes.append(_change(name, Change.NULLED, Reason.SOURCE_SERIALIZATION_ERROR))
        else:
            if convert is values.date_time and values.is_cut(value):
                cut = _change(name, Change.TRUNCATED, Reason.SOURCE_FIELD_SIZE_LIMITATION)
                changes.append(cut)
    return fitting, changes


def _converter(schema: Any) -> Callable[[Any], Any] | None:
    """What makes a value fit a column; None where any value does."""
    if not isinstance(schema, Mapping):
        return None
    types = schema.get("type")
    named = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    kinds = [kind for kind in named if kind != "null"]
    if len(kinds) != 1 or not isinstance(kinds[0], str):
        return None
    if kinds == ["string"] and schema.get("format") == "date-time":
        return values.date_time
    return _CONVERTERS.get(kinds[0])


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "string": values.text,
    "boolean": values.boolean,
    "number": values.number,
    "integer": values.integer,
    "object": values.an_object,
    "array": values.a_list,
}


def _is_too_deep(value: Any) -> bool:
    """Whether a value is nested in more levels than can be written out."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
