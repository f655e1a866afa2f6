"""The unified model as the customer has it: the columns that an override adds.

Truto describes the model with the overrides of the environment and of the account merged in, in a
form that is not quite JSON Schema: `required` stands as a boolean on each property, and nothing of
it is guaranteed. What is understood becomes a column; what is not becomes a column of any type.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from source_truto_segments.client import Truto
from source_truto_segments.config import Config
from source_truto_segments.envelope import quote
from source_truto_segments.errors import ReadError
from source_truto_segments.records import segments_schema

_PATH = "unified/marketing-automation/segments/meta/list"
# Somebody waits for the schema in front of a form, and it is there without the answer, too.
_PATIENCE_SECONDS = 15.0

_KNOWN_TYPES = frozenset({"string", "boolean", "number", "integer", "object", "array"})
_ANY_TYPE = ["null", "string", "number", "boolean", "object", "array"]


def custom_columns(config: Config, truto: Truto, logger: logging.Logger) -> dict[str, Any]:
    """Asks Truto for the columns that the model has beyond the unified ones.

    Whatever goes wrong is told in one line; the unified columns then stand alone.

    Args:
        config: Names the account whose model it is.
        truto: What all requests of the run share.
        logger: Where a failure is told.

    Returns:
        A JSON schema for each column.
    """
    answers: list[Mapping[str, Any]] = []
    failures: list[str] = []

    def ask() -> None:
        doing = f"Asking for the custom fields of integrated account {config.integrated_account_id}"
        params = {"integrated_account_id": config.integrated_account_id}
        try:
            answers.append(truto.ask(f"{config.api_url}/{_PATH}", params, doing))
        except ReadError as failure:
            failures.append(failure.cause)

    # An answer can hang or come byte by byte; the thread is not waited for then.
    asking = threading.Thread(target=ask, name="model", daemon=True)
    asking.start()
    asking.join(_PATIENCE_SECONDS)
    if answers:
        return columns_of(answers[0])
    why = failures[0] if failures else f"no answer came within {_PATIENCE_SECONDS:.0f} s"
    logger.warning(
        "The schema has the unified fields only, without custom ones. %s. Refresh the source "
        "schema to ask again.",
        why,
    )
    return {}


def columns_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schemas of the fields that the model has beyond the unified ones."""
    schema = meta.get("schema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    unified = segments_schema()["properties"]
    return {name: _column(field) for name, field in properties.items() if name not in unified}


def _column(field: Any) -> dict[str, Any]:
    field = field if isinstance(field, Mapping) else {}
    types = field.get("type")
    named = types if isinstance(types, list) else [types]
    kinds = [kind for kind in named if kind != "null"]
    kind = kinds[0] if len(kinds) == 1 and isinstance(kinds[0], str) else None
    column: dict[str, Any] = {"type": ["null", kind] if kind in _KNOWN_TYPES else _ANY_TYPE}
    if kind == "string" and field.get("format") == "date-time":
        column |= {"format": "date-time", "airbyte_type": "timestamp_with_timezone"}
    if kind == "object":
        column["additionalProperties"] = True
    if isinstance(field.get("description"), str):
        column = {"description": quote(field["description"]), **column}
    return column
