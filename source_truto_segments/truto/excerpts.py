"""Make texts from other systems safe for messages and logs: mask them, then cut them.

Every text from another system passes through `excerpt`, and the whole output through `mask`.
"""

import html
import json
import re
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus, unquote

# The most characters of another system's text in a message: enough to show the cause.
MAX_EXCERPT_LENGTH = 300
# Text after this many characters is neither searched nor shown.
_MAX_EXAMINED = 4_000
_MASK = "****"

# Mask any part of a secret with at least this many characters: other systems cut texts, too.
_RUN = 12
# A shorter secret would mask letters in every message.
_MIN_SECRET_LENGTH = 4
# A parameter's value that is shorter, or has no digit, may be an ordinary word. Unless it is as
# long as a run, it is masked only after the parameter's name.
_MIN_VALUE_LENGTH = 8

# How many levels of an object, and entries of a list, to search for a reason.
_MAX_DEPTH = 10
_MAX_ENTRIES = 5
# In how many spellings of a text to search for secrets.
_MAX_SPELLINGS = 16

# The keys for which Truto and the vendors return a reason, the most precise first.
_REASON_KEYS = (
    *("message", "error_description", "error_message", "errorMessage", "error", "detail", "title"),
    *("errors", "reason", "description", "msg", "meta", "code", "error_code"),
)
_DECODER = json.JSONDecoder()

_SPACE = re.compile(r"[\s+]")
_URL_SAFE = str.maketrans("+/", "-_")

_QUOTE = r"(?:\\{0,4}[\"']|%22|%27|&quot;|&\#3[49];)"
_BLANK = r"(?:\s|%20|\+)"
_ASSIGN = rf"{_QUOTE}?{_BLANK}{{0,4}}(?:=>?|:|%3[AD]){_BLANK}{{0,4}}"
_NAME = (
    r"(?:authori[sz]ation|x-auth|(?:api|access|private|auth)[\W_]{0,3}(?:key|token)|token|secret"
    r"|pass(?:word|wd|phrase)|pwd|bearer|credential|signature|cookie|session[\W_]{0,3}id)[\w\[\]-]{0,20}"
)
_SCHEME = rf"(?:(?:bearer|basic|digest|token){_BLANK}{{1,4}})"
# Words after "bearer" that are prose and not a token.
_PROSE = r"(?:tokens?|auth\w*|schemes?|headers?|realm|credentials?|is|was|in|for|or|and)\b"
_VALUE = rf"(?(quote)(?:(?!{_QUOTE}).)+|[^\s\"'<>&,;)\]}}]+)"
_NO_WORD = r"(?=[\w.~+=-]*\d|\w{24})[\w.~+=-][\w.~+/=-]{7,}"
_CREDENTIALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Any value after a name and an equals sign or a colon.
        rf"(?P<name>{_NAME}{_ASSIGN}(?P<quote>{_QUOTE})?){_SCHEME}?{_VALUE}",
        rf"(?P<name>bearer{_BLANK}{{1,4}}(?P<quote>{_QUOTE})?)(?!{_PROSE}){_VALUE}",
        # A value that cannot be a word, up to some words after a name.
        rf"(?P<name>{_NAME}\W{{1,12}}(?:\w{{1,12}}\W{{1,12}}){{0,4}}?){_NO_WORD}",
        r"(?P<name>://)[^/\s@]+(?=@)",
    )
)


class _Spelling(NamedTuple):
    """A text, and where in the original text each of its characters begins and ends."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


class Secrets:
    """The secrets of the configuration in use, which no output may show."""

    def __init__(self) -> None:
        # The runs to search for, by their length.
        self.runs: Mapping[int, frozenset[str]] = {}
        self.parameters: Sequence[re.Pattern[str]] = ()
        self._given: Collection[str] = ()
        self._added: set[str] = set()

    def replace(self, secrets: Iterable[str], parameters: Iterable[tuple[str, str]]) -> None:
        """Replace the secrets with those of another configuration.

        Args:
            secrets: Texts to mask, even in part.
            parameters: Names and values of query parameters. A value that may be an ordinary word
                is masked only after its name, any other value like a secret.
        """
        pairs = [(name, value) for name, value in parameters if name and value]
        values = [value for _, value in pairs if len(value) >= _RUN or _is_no_word(value)]
        self._given = [*secrets, *values]
        self.parameters = [_parameter(name, value) for name, value in pairs]
        self.runs = _runs_of([*self._given, *self._added])

    def add(self, secret: str) -> None:
        """Add a secret of this machine."""
        self._added.add(secret)
        self.runs = _runs_of([*self._given, *self._added])


SECRETS = Secrets()


def excerpt(value: Any) -> str:
    """Return another system's value as one line of at most MAX_EXCERPT_LENGTH characters.

    Mask secrets and whatever looks like credentials, and drop invisible characters. Of an object,
    show only the values of keys that hold reasons, or the names of its keys if it has no reason.
    """
    text = mask(_visible(error_text(value)[:_MAX_EXAMINED]))
    for pattern in _CREDENTIALS:
        text = pattern.sub(rf"\g<name>{_MASK}", text)
    line = " ".join(text.split())
    return line if len(line) <= MAX_EXCERPT_LENGTH else f"{line[: MAX_EXCERPT_LENGTH - 1]}…"


def mask(text: str) -> str:
    """Mask secrets and parts of them in a text, in any case, escaped or in base64."""
    hidden = bytearray(len(text))
    for spelled, starts, ends in _spellings(text):
        for size, runs in SECRETS.runs.items():
            for at in range(len(spelled)):
                if spelled[at : at + size] in runs:
                    begin, end = starts[at], ends[at + size - 1]
                    hidden[begin:end] = b"\1" * (end - begin)
    for run in reversed([*re.finditer(b"\1+", hidden)]):
        text = f"{text[: run.start()]}{_MASK}{text[run.end() :]}"
    for pattern in SECRETS.parameters:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text


def error_text(value: Any, depth: int = _MAX_DEPTH) -> str:
    """Return an error's text; for an object, its reason or, without one, the names of its keys."""
    if value in (None, {}, []):
        return ""
    if depth < 0:
        return "…"
    if isinstance(value, str):
        return _without_objects(value[:_MAX_EXAMINED], depth)
    if isinstance(value, Mapping):
        reasons = (error_text(value.get(key), depth - 1) for key in _REASON_KEYS)
        return next(filter(None, reasons), f"{{{', '.join(map(str, value))}}}")
    if isinstance(value, list):
        entries = (error_text(entry, depth - 1) for entry in value[:_MAX_ENTRIES])
        return "; ".join(filter(None, entries))
    return json.dumps(value)


def _without_objects(text: str, depth: int) -> str:
    """Replace each JSON object in a text, even a broken one, with the part that may be shown."""
    parts: list[str] = []
    while "{" in text:
        begin = text.index("{")
        try:
            value, end = _DECODER.raw_decode(text, begin)
            shown = error_text(value, depth - 1)
        except (ValueError, RecursionError):
            end = begin + _length_of_block(text[begin:])
            block = text[begin:end]
            shown = "{…}" if {":", "="} & set(block) else block
        parts += [text[:begin], shown]
        text = text[end:]
    return "".join([*parts, text])


def _length_of_block(text: str) -> int:
    """Return the length of the block in braces with which a text begins, which may have no end."""
    ends = (brace.end() for brace in re.finditer("}", text))
    return next((end for end in ends if text[:end].count("{") == text[:end].count("}")), len(text))


def _visible(text: str) -> str:
    """Drop control and format characters, such as those that reverse a text's direction."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))


def _is_no_word(value: str) -> bool:
    return len(value) >= _MIN_VALUE_LENGTH and any(map(str.isdigit, value))


def _parameter(name: str, value: str) -> re.Pattern[str]:
    values = "|".join(map(re.escape, (value, *_in_urls(value))))
    start = rf"((?:(?<!\w)|(?<=%5B)){re.escape(name)}(?:\]|%5D)?{_ASSIGN}{_QUOTE}?)"
    return re.compile(rf"{start}(?:{values})(?!\w)", re.IGNORECASE)


def _in_urls(text: str) -> tuple[str, str]:
    return quote(text, safe="", errors="replace"), quote_plus(text, errors="replace")


def _runs_of(secrets: Iterable[str]) -> dict[int, frozenset[str]]:
    runs: dict[int, set[str]] = {}
    for secret in {form.strip() for each in secrets for form in (each, _visible(each))}:
        size = min(_RUN, len(secret))
        if size < _MIN_SECRET_LENGTH:
            continue
        spellings = [spelled for spelled, _, _ in _spellings(secret)]
        spellings += [_fold(form) for form in _in_base64(secret) if len(form) >= _RUN]
        for text in spellings:
            starts = range(len(text) - size + 1)
            runs.setdefault(size, set()).update(text[at : at + size] for at in starts)
    return {size: frozenset(found) for size, found in runs.items()}


def _in_base64(secret: str) -> Iterator[str]:
    """Yield a secret's base64 at each offset, without characters that depend on its neighbors."""
    for form in {secret, *_in_urls(secret), json.dumps(secret)[1:-1]}:
        content = form.encode(errors="replace")
        # A character of base64 holds 6 bits; leave out those that share bits with a neighbor.
        for offset, first in enumerate((0, 2, 3)):
            encoded = b64encode(bytes(offset) + content).decode()
            inner = encoded[first : (offset + len(content)) * 8 // 6]
            yield from (inner, inner.translate(_URL_SAFE))


def _spellings(text: str) -> Iterator[_Spelling]:
    """Yield a text, and its forms with escapes of each kind resolved, repeatedly; fold them all."""
    found = [_Spelling(text, range(len(text)), range(1, len(text) + 1))]
    # The list grows meanwhile.
    for spelling in found:
        yield _Spelling(_fold(spelling.text), spelling.starts, spelling.ends)
        for escape, unescape in _ESCAPES:
            if escape.search(spelling.text) and len(found) < _MAX_SPELLINGS:
                resolved = _resolved(spelling, escape, unescape)
                if all(resolved.text != known.text for known in found):
                    found.append(resolved)


def _resolved(
    spelling: _Spelling, escape: re.Pattern[str], unescape: Callable[[str], str]
) -> _Spelling:
    text, starts, ends = spelling
    parts: list[str] = []
    new_starts: list[int] = []
    new_ends: list[int] = []
    at = 0
    for match in escape.finditer(text):
        begin, end = match.span()
        plain = unescape(match[0])
        parts += [text[at:begin], plain]
        new_starts += [*starts[at:begin], *[starts[begin]] * len(plain)]
        new_ends += [*ends[at:begin], *[ends[end - 1]] * len(plain)]
        at = end
    return _Spelling(
        "".join([*parts, text[at:]]), [*new_starts, *starts[at:]], [*new_ends, *ends[at:]]
    )


def _unescape_json(escape: str) -> str:
    try:
        return str(json.loads(f'"{escape.lower()}"'))
    except ValueError:
        return escape[1:]


# How URLs, JSON and HTML escape characters.
_ESCAPES: Sequence[tuple[re.Pattern[str], Callable[[str], str]]] = (
    (re.compile(r"(?:%[0-9a-fA-F]{2})+"), unquote),
    (re.compile(r"(?:\\[uU][0-9a-fA-F]{4})+|\\.", re.DOTALL), _unescape_json),
    (re.compile(r"&#?\w{1,8};"), lambda escape: html.unescape(escape.lower())),
)


def _fold(text: str) -> str:
    """Return a text of the same length in lower case, with one kind of space."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return _SPACE.sub(" ", lower)
