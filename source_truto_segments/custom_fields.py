"""Find the custom fields of a customer's model: the columns that an override adds.

Truto describes the model, including the overrides of the environment and the account. The
description is not quite JSON Schema, and not reliable: `required` is a boolean on each property. A
field of a known type becomes a column of that type, any other field a column of any type.
"""

import logging
from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from typing import Any

from source_truto_segments.records.columns import load_schema
from source_truto_segments.sync.worker_pool import Task, TaskFailed, WorkerPool
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import Request, TrutoClient
from source_truto_segments.truto.errors import ReadError
from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH, excerpt, mask
from source_truto_segments.truto.responses import parse_object

logger = logging.getLogger("airbyte")

_PATH = "unified/marketing-automation/segments/meta/list"
# Seconds. A user waits for the schema in front of a form.
DEADLINE = 25.0

# After these failures, Truto has no description of the model, so there are no custom fields.
_NO_MODEL = (errors.ACCOUNT_NOT_FOUND, errors.VENDOR_NOT_FOUND, errors.NOT_SUPPORTED)

_KNOWN_TYPES = frozenset({"string", "boolean", "number", "integer", "object", "array"})
_ANY_TYPE = ["null", "string", "number", "boolean", "object", "array"]
# Destinations reserve names that begin like this.
_RESERVED = ("_airbyte", "_ab_")
# Destinations accept tables of about this many columns.
_MAX_COLUMNS = 1_000


def custom_columns(
    account_id: str,
    client: TrutoClient,
    pool: WorkerPool[Mapping[str, Any] | ReadError],
) -> dict[str, Any]:
    """Ask Truto for the columns that a model has in addition to the unified ones.

    Args:
        account_id: The account whose model to read.
        client: Sends the request.
        pool: Runs it.

    Returns:
        A JSON schema for each column.

    Raises:
        ReadError: If Truto did not answer. A smaller schema would drop columns at the destination.
    """
    operation = f"Asking for the custom fields of integrated account {account_id}"
    params = {"integrated_account_id": account_id}
    pool.submit(_fetch(client, Request(_PATH, operation, parse_object, account_id, params)))
    with closing(pool):
        for event in pool.events_within(DEADLINE):
            match event:
                case TaskFailed(error):
                    raise errors.unexpected_error(operation, account_id, error)
                case ReadError() if event.resolution in _NO_MODEL:
                    return {}
                case ReadError():
                    raise errors.for_discover(event)
                case Mapping():
                    return parse_columns(event)
    detail = f" (no answer within {DEADLINE:.0f} s)"
    raise errors.for_discover(ReadError(client.timed_out, operation, account_id, detail))


def parse_columns(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schemas of the fields that a model has in addition to the unified ones.

    Leave out, with a warning, names that a destination would reject or confuse with another, and
    fields beyond the most columns that a table can have.
    """
    schema = meta.get("schema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    unified = load_schema("segments")["properties"]
    columns: dict[str, Any] = {}
    rejected: list[str] = []
    taken = {name.lower() for name in unified}
    for name, field in properties.items():
        if name in unified:
            continue
        folded = name.strip().lower()
        if not folded or folded.startswith(_RESERVED) or folded in taken or _is_unfit(name):
            rejected.append(name)
        else:
            taken.add(folded)
            columns[name] = _column(field)
    if rejected:
        logger.warning(
            "Custom fields are left out, because their names are empty, too long, reserved by "
            "destinations, or differ from another column's in case only: %s. Rename them in Truto.",
            excerpt(", ".join(f'"{name}"' for name in rejected)),
        )
    if len(columns) > _MAX_COLUMNS:
        logger.warning(
            "The model has %d custom fields: the first %d are columns, the others are left out.",
            *(len(columns), _MAX_COLUMNS),
        )
    return dict(islice(columns.items(), _MAX_COLUMNS))


def _is_unfit(name: str) -> bool:
    """Return whether a name is too long, or holds a secret."""
    return len(name) > MAX_EXCERPT_LENGTH or mask(name) != name


def _fetch(
    client: TrutoClient, request: Request[dict[str, Any]]
) -> Task[Mapping[str, Any] | ReadError]:
    try:
        yield (yield from client.fetch(request))
    except ReadError as error:
        yield error


def _column(field: Any) -> dict[str, Any]:
    field = field if isinstance(field, Mapping) else {}
    types = field.get("type")
    listed = types if isinstance(types, list) else [types]
    non_null = [name for name in listed if name != "null"]
    kind = non_null[0] if len(non_null) == 1 and isinstance(non_null[0], str) else None
    column: dict[str, Any] = {"type": ["null", kind] if kind in _KNOWN_TYPES else _ANY_TYPE}
    if kind == "string" and field.get("format") == "date-time":
        column |= {"format": "date-time", "airbyte_type": "timestamp_with_timezone"}
    if kind == "object":
        column["additionalProperties"] = True
    if isinstance(field.get("description"), str):
        column = {"description": excerpt(field["description"]), **column}
    return column
