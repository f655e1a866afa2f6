"""The custom fields of a customer's model: the columns that an override adds.

Truto describes the model with the overrides of the environment and of the account merged in, in a
form that is not quite JSON Schema: `required` is a boolean on each property, and nothing in it is
guaranteed. A field of a known type becomes a column of that type, any other a column of any type.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from source_truto_segments.records.columns import load_schema
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import Request, TrutoClient
from source_truto_segments.truto.errors import ReadError, unexpected_error
from source_truto_segments.truto.responses import excerpt, parse_object

logger = logging.getLogger("airbyte")

_PATH = "unified/marketing-automation/segments/meta/list"
# Seconds. A user waits for the schema in front of a form, and it is usable without custom fields.
_TIMEOUT = 15.0

_KNOWN_TYPES = frozenset({"string", "boolean", "number", "integer", "object", "array"})
_ANY_TYPE = ["null", "string", "number", "boolean", "object", "array"]


def custom_columns(account_id: str, client: TrutoClient) -> dict[str, Any]:
    """Ask Truto for the columns that the model has beyond the unified ones.

    A failure is logged as one warning, and the schema then has the unified columns only.

    Args:
        account_id: The account whose model it is.
        client: Sends the request.

    Returns:
        A JSON schema for each column.
    """
    responses: list[Mapping[str, Any]] = []
    failures: list[str] = []

    def fetch() -> None:
        operation = f"Asking for the custom fields of integrated account {account_id}"
        params = {"integrated_account_id": account_id}
        try:
            request: Request[Mapping[str, Any]] = Request(
                _PATH, operation, parse_object, account_id, params
            )
            responses.append(client.fetch_once(request))
        except ReadError as error:
            failures.append(_reason(error))
        except Exception as error:  # noqa: BLE001 - a thread must not end silently
            failures.append(unexpected_error(operation, account_id, error).summary)

    # A response can hang or come byte by byte; the thread is then not waited for.
    thread = threading.Thread(target=fetch, name="custom_fields", daemon=True)
    thread.start()
    thread.join(_TIMEOUT)
    if responses:
        return parse_columns(responses[0])
    reason = failures[0] if failures else f"No response came within {_TIMEOUT:.0f} s"
    logger.warning(
        "The schema has the unified fields only, without custom ones. %s. Refresh the source "
        "schema to try again.",
        reason,
    )
    return {}


def parse_columns(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schemas of the fields that a model has beyond the unified ones."""
    schema = meta.get("schema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    unified = load_schema("segments")["properties"]
    return {name: _column(field) for name, field in properties.items() if name not in unified}


def _reason(error: ReadError) -> str:
    """Say why there is no description: on this route, a 404 does not mean an unknown account."""
    if error.resolution in (errors.ACCOUNT_NOT_FOUND, errors.VENDOR_NOT_FOUND):
        return (
            "Truto has no model description (custom fields) for integrated account "
            f"{error.account_id}{error.detail}"
        )
    return error.summary


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
