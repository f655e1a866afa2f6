"""Read the three files of a command: the configuration, the configured catalog and the state.

Accept what people and tools write: UTF-8 whatever the locale is, UTF-16, and a byte order mark.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airbyte_cdk.models import (
    AirbyteStateMessage,
    AirbyteStateMessageSerializer,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteCatalogSerializer,
    Type,
)
from serpyco_rs import ErrorItem, SchemaValidationError

from source_truto_segments.config import TYPE_NAMES, ConfigError
from source_truto_segments.truto.excerpts import excerpt

# Airbyte generates these files; only hand-written ones are malformed.
_CONFIG, _CATALOG, _STATE = "configuration", "catalog", "state"
_OPTIONS = {_CONFIG: "--config", _CATALOG: "--catalog", _STATE: "--state"}
_COMMAND = (
    "The guide (docs/truto-segments.md, On the command line) has the command that makes it from "
    "the output of"
)
_FORMS = {
    _CONFIG: 'an object, such as {"token": "…", "integrated_account_id": "…"}.',
    _CATALOG: (
        "a configured catalog: each stream that discover prints, as "
        '{"streams": [{"stream": …, "sync_mode": …, "destination_sync_mode": …}]}. '
        f"{_COMMAND} discover."
    ),
    _STATE: (
        f"a list of the state of each stream's last STATE message. {_COMMAND} read. Without one, "
        "everything is read; in Airbyte, reset the connection's streams."
    ),
}
_PROBLEMS: Mapping[type[OSError], str] = {
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "it is a folder",
    PermissionError: "this user has no permission",
}
_KINDS = {list: "a list", dict: "an object", str: "a text", bool: "a boolean", type(None): "null"}

# Common mistakes: by the text at which the parser fails, then by the parser's own message.
_SLIPS: tuple[tuple[str, str], ...] = (
    (r"//|/\*|#", "line {} has a comment, which JSON does not have"),
    (r",\s*[}\]]", "line {} ends with a comma, after which nothing follows"),
    (r"'", "line {} has a single quote; JSON takes double quotes"),
    (r"(True|False|None)\b", "line {} has True, False or None; JSON has true, false and null"),
    (r"$", "it ends in line {} before all brackets and quotes are closed"),
)
_PARSER_WORDS: tuple[tuple[str, str], ...] = (
    ("Extra data", "line {} has more after the end of the first JSON value"),
    ("Expecting ','", "a comma is missing before what begins in line {}, or a bracket"),
    ("Expecting ':'", "a colon is missing in line {}"),
    ("Expecting property name", "line {} has a key without double quotes"),
    ("Unterminated string", "a text that begins in line {} has no closing quote"),
    ("Invalid control character", "a text in line {} contains a line break or a tab"),
    ("Invalid \\", "line {} has a backslash in a text, which is written twice"),
)
# The types of the messages that a command prints, except STATE.
_PRINTED = [kind.value for kind in Type if kind is not Type.STATE]


class _FormError(ValueError):
    """A file that does not have the required form; the message says what it is instead."""


def read_config(path: str) -> dict[str, Any]:
    """Read the configuration file.

    Raises:
        ConfigError: If it cannot be read, or is not an object.
    """
    with _as_config_error(path, _CONFIG):
        return _as_object(_read_json(path, _CONFIG))


def read_catalog(path: str) -> ConfiguredAirbyteCatalog:
    """Read the file with the configured catalog.

    Raises:
        ConfigError: If it cannot be read, or is not valid.
    """
    with _as_config_error(path, _CATALOG):
        content = _as_object(_read_json(path, _CATALOG))
        return ConfiguredAirbyteCatalogSerializer.load(content)


def read_state(path: str) -> list[AirbyteStateMessage]:
    """Read the state file: a list of states, a single state, a STATE message, or nothing.

    Raises:
        ConfigError: If it cannot be read, or is not valid.
    """
    if not path:
        return []
    with _as_config_error(path, _STATE):
        content = _read_json(path, _STATE)
        entries = content if isinstance(content, list) else [content] if content else []
        return [AirbyteStateMessageSerializer.load(_state(entry)) for entry in entries]


def _state(entry: Any) -> Any:
    """Return the state of an entry; an entry without a type is a stream's state."""
    if not isinstance(entry, Mapping):
        raise _FormError("an entry is not an object")
    if entry.get("type") == "STATE":
        entry = entry.get("state") or {}
    if not any(entry.get(name) for name in ("stream", "global", "data")):
        raise _FormError("an entry has no stream and no stream_state")
    return {"type": "STREAM", **entry}


def _as_object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _FormError(f"it is {_KINDS.get(type(content), 'a number')}, not an object")
    return content


def _read_json(path: str, kind: str) -> Any:
    """Return the content of a file, unless it is clearly of another kind; None if it is empty."""
    content = Path(path).read_bytes()
    # Windows also writes UTF-16.
    text = content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    if not text.strip():
        if kind == _STATE:
            return None
        raise _FormError("it is empty")
    try:
        value, end = json.JSONDecoder().raw_decode(text, len(text) - len(text.lstrip()))
        is_complete = not text[end:].strip()
        found = _kind_of(value)
        if found == "output" or (found == _STATE and not is_complete):
            raise _FormError("it is the output of a command")
        if found not in (None, kind):
            raise _FormError(f"it looks like a {found}")
        return value if is_complete else json.loads(text)
    except json.JSONDecodeError as error:
        raise _FormError(_slip(text, error)) from None
    except RecursionError:
        raise _FormError("it is nested too deeply") from None


def _kind_of(content: Any) -> str | None:
    """Return which of the files a content is for, or "output"; None if it cannot be recognized."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, Mapping):
        return None
    if first.keys() & {"token", "integrated_account_id"}:
        return _CONFIG
    if first.get("type") in _PRINTED:
        return "output"
    stream = first.get("stream")
    if "state" in first or (isinstance(stream, Mapping) and "stream_descriptor" in stream):
        return _STATE
    return _CATALOG if isinstance(first.get("streams"), list) else None


def _slip(text: str, error: json.JSONDecodeError) -> str:
    """Return at which line a text is not JSON, and the probable mistake, without quoting it."""
    rest = text[error.pos :]
    if not error.msg.startswith("Invalid control"):
        rest = rest.lstrip()
    before = text[: error.pos].rstrip()
    if before.endswith(",") and rest.startswith(("}", "]")):
        rest = f",{rest}"
        line = before.count("\n") + 1
    else:
        line = text[: len(text) - len(rest)].count("\n") + 1
    for pattern, sentence in _SLIPS:
        if re.match(pattern, rest):
            return sentence.format(line)
    for words, sentence in _PARSER_WORDS:
        if error.msg.startswith(words):
            return sentence.format(line)
    return f"line {line} is not JSON"


@contextmanager
def _as_config_error(path: str, kind: str) -> Iterator[None]:
    """Turn the errors of a file that cannot be read, or is not valid, into a ConfigError."""
    option = _OPTIONS[kind]
    if not path:
        raise ConfigError(f"{option} is empty. It must be the path of a file.")
    try:
        yield
    except OSError as error:
        problem = _PROBLEMS.get(type(error), error.strerror)
        raise ConfigError(f"The file {path} ({option}) cannot be read: {problem}.") from None
    except SchemaValidationError as invalid:
        detail = _in_words(invalid.errors[0])
    except UnicodeDecodeError:
        detail = "it is not a text in UTF-8"
    except _FormError as invalid:
        detail = str(invalid)
    except (ValueError, TypeError, AttributeError, RecursionError):
        detail = "it does not have the form that is required"
    else:
        return
    raise ConfigError(
        f"{path} is not valid: {detail}. The {kind} ({option} FILE) must be {_FORMS[kind]}"
    )


def _in_words(error: ErrorItem) -> str:
    """Return a violation of a schema as people say it, with its place."""
    parts = [f"entry {int(p) + 1}" if p.isdigit() else p for p in error.instance_path.split("/")]
    message = error.message
    if message.endswith(" is a required property"):
        message = f'"{parts.pop()}" is missing'
    for name, words in TYPE_NAMES.items():
        message = message.replace(f'is not of type "{name}"', f"is not {words}")
    place = ", ".join(filter(None, parts))
    return excerpt(message) + (f" ({place})" if place else "")
