"""The description of the unified model that the meta endpoint gives."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.environment import Account

# `required` stands on the property itself: this is Truto's form, and no valid JSON Schema.
_FIELDS: dict[str, dict[str, Any]] = {
    "id": {
        "type": "string",
        "description": "The unique identifier for the segment",
        "required": True,
    },
    "name": {"type": "string", "description": "The name of the segment"},
    "description": {"type": "string", "description": "The description of the segment"},
    "status": {
        "type": "string",
        "description": "The status of the segment",
        "enum": ["active", "pending", "processing", "inactive", "failed"],
    },
    "is_starred": {"type": "boolean", "description": "Whether the segment is starred"},
    "created_at": {
        "type": "string",
        "format": "date-time",
        "description": "The date and time when the segment was created",
    },
    "updated_at": {
        "type": "string",
        "format": "date-time",
        "description": "The date and time when the segment was last updated",
    },
    "last_calculated_at": {
        "type": "string",
        "format": "date-time",
        "description": "The date and time when the segment was last calculated",
    },
    "remote_data": {
        "type": "object",
        "description": "Raw data returned from the remote API call",
        "additionalProperties": True,
    },
}
_QUERY = {
    "workspace": {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "The workspace to read"}},
    },
    "tags": {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "The tag to filter by"}},
    },
}


def meta(account: Account) -> dict[str, Any]:
    """The model of segments, with the fields that the account's override adds."""
    query = copy.deepcopy(_QUERY)
    query["workspace"]["properties"]["id"]["required"] = account.needs_workspace  # type: ignore[index]
    schema = {
        "type": "object",
        "properties": {**copy.deepcopy(_FIELDS), **copy.deepcopy(account.custom_fields)},
    }
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
        "query_schema": {"type": "object", "properties": query},
    }
