"""The unified model, as the meta endpoint describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.environment import Account

# Truto writes `required` as a boolean of the property, which is not valid JSON Schema.
_DATE = {"type": "string", "format": "date-time"}
_STATUSES = ["active", "pending", "processing", "inactive", "failed"]
_FIELDS: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "description": "The id of the segment", "required": True},
    "name": {"type": "string", "description": "The name of the segment"},
    "description": {"type": "string", "description": "The description of the segment"},
    "status": {"type": "string", "description": "The status of the segment", "enum": _STATUSES},
    "is_starred": {"type": "boolean", "description": "Whether the segment is starred"},
    "created_at": {**_DATE, "description": "When the segment was created"},
    "updated_at": {**_DATE, "description": "When the segment was last updated"},
    "last_calculated_at": {**_DATE, "description": "When the segment was last calculated"},
    "remote_data": {
        "type": "object",
        "description": "Raw data returned from the remote API call",
        "additionalProperties": True,
    },
}
_TAG = {"type": "string", "description": "The tag to filter by"}


def meta(account: Account) -> dict[str, Any]:
    """Return the model of segments, with the fields that the account's override adds."""
    workspace = {
        "type": "string",
        "description": "The workspace to read",
        "required": account.needs_workspace,
    }
    schema = {"type": "object", "properties": {**_FIELDS, **account.custom_fields}}
    return {
        "method": "list",
        "resource": "segments",
        "schema": schema,
        "response_schema": {
            "type": "object",
            "properties": {
                "result": {"type": "array", "items": schema},
                "next_cursor": {"type": "string"},
                "prev_cursor": {"type": "string"},
                "result_count": {"type": "number"},
                "is_partial_response": {"type": "boolean"},
            },
        },
        "query_schema": {
            "type": "object",
            "properties": {
                "workspace": {"type": "object", "properties": {"id": workspace}},
                "tags": {"type": "object", "properties": {"id": _TAG}},
            },
        },
    }
