"""What a platform does with the messages of a connector: for tests, benchmarks and the demo."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def messages(output: str | bytes) -> list[dict[str, Any]]:
    """Return the messages in a connector's output, whose last line can be empty."""
    # Not splitlines, because a text can contain other line breaks than the protocol's.
    lines = (output if isinstance(output, bytes) else output.encode()).split(b"\n")
    return [json.loads(line, parse_constant=_refuse) for line in lines if line]


def streams(*names: str, schema: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return streams as a catalog lists them, all with the same columns."""
    modes = ["full_refresh", "incremental"]
    return [
        {"name": name, "json_schema": dict(schema or {}), "supported_sync_modes": modes}
        for name in names
    ]


def configured_catalog(
    selected: Iterable[Mapping[str, Any]], sync_mode: str = "incremental"
) -> dict[str, Any]:
    """Return a configured catalog that selects these streams."""
    destination_mode = "overwrite" if sync_mode == "full_refresh" else "append_dedup"
    modes = {"sync_mode": sync_mode, "destination_sync_mode": destination_mode}
    return {"streams": [{"stream": dict(stream), **modes} for stream in selected]}


def last_states(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the last state of each stream, as Airbyte hands it to the next sync."""
    last = {state["stream"]["stream_descriptor"]["name"]: state for state in states}
    return [{k: v for k, v in state.items() if k != "sourceStats"} for state in last.values()]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
