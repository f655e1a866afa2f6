"""Find the keys of a configuration that have no effect: unknown ones, and those of another mode."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from source_truto_segments.truto.excerpts import excerpt

# From this similarity on, a known key is suggested for an unknown one. Known keys on the same level
# are preferred.
_SIMILAR = 0.5
_SIBLING_BONUS = 0.1
_MAX_LENGTH = 100

# The names of the keys from the outermost to the innermost; an entry of a list is also a level.
_Path: TypeAlias = tuple[str, ...]
_ENTRY = "[]"


def ignored_keys(given: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each key that has no effect. Keys that begin with _ are comments.

    Args:
        given: The configuration.
        spec: The JSON schema of the form.
    """
    known = dict.fromkeys(_known_keys(spec))
    for path in dict.fromkeys(_given_keys(given, known)):
        if path not in known:
            yield _unknown_key(path, known)
    accounts = given.get("additional_accounts")
    if not isinstance(accounts, Mapping):
        return
    forms = [form["properties"] for form in spec["properties"]["additional_accounts"]["oneOf"]]
    by_mode = {form["mode"]["const"]: form for form in forms}
    mode = str(accounts.get("mode"))
    for name in accounts:
        others = [other for other, form in by_mode.items() if name in form]
        if others and mode in by_mode and mode not in others:
            yield (
                f'The key "additional_accounts.{name}" has no effect with the mode "{mode}"; it '
                f'belongs to the mode "{others[0]}".'
            )


def _known_keys(schema: Mapping[str, Any], path: _Path = ()) -> Iterator[_Path]:
    for form in (schema, *schema.get("oneOf", ())):
        for name, inner in form.get("properties", {}).items():
            yield (*path, name)
            yield from _known_keys(inner, (*path, name))
            yield from _known_keys(inner.get("items", {}), (*path, name, _ENTRY))


def _given_keys(value: Any, known: Mapping[_Path, None], path: _Path = ()) -> Iterator[_Path]:
    """Yield the path of each key, except those below a key that is unknown or takes no keys."""
    if isinstance(value, list):
        for entry in value:
            yield from _given_keys(entry, known, (*path, _ENTRY))
    elif isinstance(value, Mapping) and any(other[:-1] == path for other in known):
        for name, inner in value.items():
            if not str(name).startswith("_"):
                yield (*path, str(name))
                yield from _given_keys(inner, known, (*path, str(name)))


def _unknown_key(path: _Path, known: Iterable[_Path]) -> str:
    """Return a sentence about an unknown key, with the most similar known one."""

    def similarity(other: _Path) -> float:
        ratio = SequenceMatcher(None, path[-1][:_MAX_LENGTH].lower(), other[-1]).ratio()
        return ratio + _SIBLING_BONUS * (other[:-1] == path[:-1])

    nearest = max(known, key=similarity)
    siblings = [other[-1] for other in known if other[:-1] == path[:-1]]
    return f'The configuration has an unknown key, "{_label(path)}", which has no effect. ' + (
        f'Perhaps "{_label(nearest)}" is meant.'
        if similarity(nearest) >= _SIMILAR
        else f"Known are {', '.join(siblings)}."
    )


def _label(path: _Path) -> str:
    return excerpt(".".join(name for name in path if name != _ENTRY))
