"""The three files of a command: the configuration, the configured catalog and the state.

They are read as people and tools leave them: UTF-8 whatever the locale, with or without a byte
order mark.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airbyte_cdk.models import (
    AirbyteStateMessage,
    AirbyteStateMessageSerializer,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteCatalogSerializer,
)
from serpyco_rs import SchemaValidationError

from source_truto_segments.config import ConfigError
from source_truto_segments.truto.excerpts import excerpt

# Airbyte generates these files; only hand-written ones are malformed.
_CATALOG_FORM = (
    " It is a configured catalog: each stream that discover prints, as "
    '{"streams": [{"stream": …, "sync_mode": …, "destination_sync_mode": …}]}.'
)
_STATE_FORM = (
    " It is a list of the state of each stream's last STATE message. Without one, everything is "
    "read; in Airbyte, reset the connection's streams."
)


def read_config(path: str) -> dict[str, Any]:
    """Read the configuration's file.

    Raises:
        ConfigError: If it cannot be read, or is not an object.
    """
    with _as_config_error(path):
        content = _read_json(path)
        if not isinstance(content, dict):
            raise TypeError("it is not a JSON object")
        return content


def read_catalog(path: str) -> ConfiguredAirbyteCatalog:
    """Read the configured catalog's file.

    Raises:
        ConfigError: If it cannot be read, or is not valid.
    """
    with _as_config_error(path, _CATALOG_FORM):
        return ConfiguredAirbyteCatalogSerializer.load(_read_json(path))


def read_state(path: str) -> list[AirbyteStateMessage]:
    """Read the state's file: a list of states, one of them, or a STATE message; empty is none.

    Raises:
        ConfigError: If it cannot be read, or is not valid.
    """
    if not path:
        return []
    with _as_config_error(path, _STATE_FORM):
        content = (
            _read_json(path) if Path(path).read_bytes().strip(b"\xef\xbb\xbf \t\r\n") else None
        )
        entries = content if isinstance(content, list) else [content] if content else []
        return [AirbyteStateMessageSerializer.load(_state(entry)) for entry in entries]


def _state(entry: Any) -> Any:
    """Return the state of an entry; a type that lacks is that of a stream."""
    if not isinstance(entry, Mapping):
        raise TypeError("an entry is not an object")
    if entry.get("type") == "STATE":
        entry = entry.get("state") or {}
    if not any(entry.get(name) for name in ("stream", "global", "data")):
        raise ValueError("an entry has no stream and no stream_state")
    return {"type": "STREAM", **entry}


def _read_json(path: str) -> Any:
    return json.loads(Path(path).read_bytes().decode("utf-8-sig"))


@contextmanager
def _as_config_error(path: str, guidance: str = "") -> Iterator[None]:
    """Say in a sentence that a file cannot be read, or is not valid."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {error.strerror}.") from None
    except SchemaValidationError as invalid:
        first = invalid.errors[0]
        detail = f"{excerpt(first.message)} at {first.instance_path or 'its root'}"
    except (ValueError, TypeError, AttributeError, RecursionError) as invalid:
        detail = excerpt(str(invalid)).rstrip(".")
    else:
        return
    raise ConfigError(f"{path} is not valid: {detail}.{guidance}")
