"""The user's configuration, validated and typed."""

import json
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from jsonschema import Draft7Validator, ValidationError

from source_truto_segments.ignored_keys import ignored_keys
from source_truto_segments.truto.errors import UserError
from source_truto_segments.truto.excerpts import SECRETS, excerpt
from source_truto_segments.truto.machine import is_loopback
from source_truto_segments.truto.vendors import VENDORS, vendor_of

DEFAULT_API_URL = "https://api.truto.one"
# Truto's names for the marketing tools for which it documents segments.
INTEGRATIONS = frozenset(VENDORS)
_CATEGORY = "marketingautomation"

# How many of the keys without an effect to report.
_MAX_WARNINGS = 10

# Examples of lists, for people who write a single value.
_EXAMPLES: Mapping[str, Any] = {
    "ids": ["62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"],
    "integrations": ["klaviyo"],
    "tenant_ids": ["acme"],
    "remote_query": [{"name": "sort", "value": "-updated"}],
}

# The types of JSON, as schemas and their validators name them, in plain words.
TYPE_NAMES: Mapping[str, str] = {
    "array": "a list",
    "list": "a list",
    "object": "an object",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}

# A token may be pasted with the scheme from its header.
_BEARER_PREFIX = re.compile(r"^Bearer(\s+|$)", re.IGNORECASE)
# With any of these in a URL, a path appended to it would not be a path below it.
_NOT_IN_A_BASE = re.compile(r"[?#\\\x00-\x20\x7f-\xa0]|(^|/)\.{1,2}(/|$)")


class ConfigError(UserError):
    """An invalid configuration; its message names the field and what is valid."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of an environment, such as 2/5; each account is in exactly one.

    Attributes:
        number: The number of this part, from 1 on.
        count: How many parts there are.
    """

    number: int
    count: int

    def contains(self, account_id: str) -> bool:
        """Return whether an account is in this part; only its ID, in lower case, decides."""
        digest = blake2b(account_id.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1

    def __str__(self) -> str:
        """Return the shard as the configuration spells it."""
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class AccountFilter:
    """Selects accounts of Truto's list.

    Attributes:
        integrations: The integrations to read, by name or label in lower case; those in
            INTEGRATIONS by name. Empty for INTEGRATIONS and all others in the category marketing
            automation.
        tenant_ids: The tenants to read; empty for all.
        shard: The part of the environment to read; None for all of it.
        spellings: How the user has written each of `integrations`.
    """

    integrations: frozenset[str] = frozenset()
    tenant_ids: frozenset[str] = frozenset()
    shard: Shard | None = None
    spellings: Mapping[str, str] = field(default_factory=dict, compare=False)

    def in_shard(self, account_id: str) -> bool:
        """Return whether an account is in the shard; True if there is none."""
        return self.shard is None or self.shard.contains(account_id)

    def matches(
        self, integration: str, category: object, tenant_id: object, label: object = None
    ) -> bool:
        """Return whether to read an account, given the values of its entry in Truto's list."""
        if self.tenant_ids and not (
            isinstance(tenant_id, str | int) and str(tenant_id) in self.tenant_ids
        ):
            return False
        if self.integrations:
            return self.names(integration, label)
        text = category.lower() if isinstance(category, str) else ""
        letters = "".join(filter(str.isalpha, text))
        return integration.lower() in INTEGRATIONS or letters == _CATEGORY

    def names(self, integration: str, label: object = None) -> bool:
        """Return whether an integration is in `integrations` or, if that is empty, INTEGRATIONS."""
        return not names_of(integration, label).isdisjoint(self.integrations or INTEGRATIONS)


def names_of(integration: object, label: object) -> set[str]:
    """Return the names of an integration, in lower case."""
    return {name.strip().lower() for name in (integration, label) if isinstance(name, str)}


@dataclass(frozen=True)
class Config:
    """The configuration, trimmed and with its defaults.

    Attributes:
        token: The API token of one Truto environment.
        integrated_account_id: The account to read, a UUID in lower case.
        workspace_id: Only this workspace; None for all.
        tag_id: Only segments with this tag; None for all.
        page_size: The most records to request per page; None for what the vendor documents.
        remote_query: Names and values that Truto forwards to the vendor unchanged.
        additional_ids: Accounts to read in addition to the first, UUIDs in lower case.
        account_list: Which accounts of Truto's list to read as well; None for none.
        skip_failed_accounts: Whether an account that cannot be read is a warning, not a failure.
        num_workers: How many accounts to read concurrently at most; None for MAX_WORKERS.
        api_url: The URL of the Truto API, without a trailing slash.
        warnings: A sentence for each key that has no effect.
    """

    token: str = field(repr=False)
    integrated_account_id: str
    workspace_id: str | None = None
    tag_id: str | None = None
    page_size: int | None = None
    remote_query: tuple[tuple[str, str], ...] = ()
    additional_ids: tuple[str, ...] = ()
    account_list: AccountFilter | None = None
    skip_failed_accounts: bool = False
    num_workers: int | None = None
    api_url: str = DEFAULT_API_URL
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def configured_account_ids(self) -> Mapping[str, None]:
        """The accounts in the configuration that are in the shard, each once.

        They are the keys of a mapping, which is fast to search.
        """
        wanted = self.account_list or AccountFilter()
        ids = (self.integrated_account_id, *self.additional_ids)
        return dict.fromkeys(filter(wanted.in_shard, ids))

    @property
    def shard_count(self) -> int:
        """How many connections share the token's limit."""
        shard = self.account_list and self.account_list.shard
        return shard.count if shard else 1

    @property
    def asks_truto(self) -> bool:
        """Whether requests go to Truto's own host, whose responses a message can quote."""
        return urlsplit(self.api_url).hostname == urlsplit(DEFAULT_API_URL).hostname

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "Config":
        """Parse the configuration as Airbyte passes it.

        Ignore white space around pasted values and, with a warning, keys that are not in the spec;
        treat null as no value.

        Raises:
            ConfigError: If a field is missing or not valid.
        """
        given = _without_blanks(raw)
        _hide_secrets(given)
        accounts = given.get("additional_accounts", {"mode": "none"})
        for level, name in ((given, "on_account_error"), (accounts, "mode")):
            if isinstance(level, dict) and isinstance(level.get(name), str):
                level[name] = level[name].strip().lower()
        warnings = tuple(islice(ignored_keys(given, _spec()), _MAX_WARNINGS))
        _validate(given, warnings)
        _reject_invalid_unicode(given)
        ids = accounts["ids"] if accounts["mode"] == "listed" else []
        return cls(
            token=_token(given["token"]),
            integrated_account_id=given["integrated_account_id"].strip().lower(),
            workspace_id=_optional_string(given.get("workspace_id")),
            tag_id=_optional_string(given.get("tag_id")),
            page_size=_optional_integer(given.get("page_size")),
            remote_query=tuple(
                (pair["name"].strip(), pair["value"]) for pair in given.get("remote_query", [])
            ),
            additional_ids=tuple(id_.strip().lower() for id_ in ids),
            account_list=_account_filter(accounts) if accounts["mode"] == "all" else None,
            skip_failed_accounts=given.get("on_account_error") == "skip",
            num_workers=_optional_integer(given.get("num_workers")),
            api_url=_api_url(given.get("api_url", DEFAULT_API_URL)),
            warnings=warnings,
        )


def _hide_secrets(given: Mapping[str, Any]) -> None:
    """Mask the token and the values of remote_query from now on, even if they are not valid."""
    token, pairs = given.get("token"), given.get("remote_query")
    found = [pair for pair in pairs if isinstance(pair, Mapping)] if isinstance(pairs, list) else []
    SECRETS.replace(
        [token, _BEARER_PREFIX.sub("", token.strip())] if isinstance(token, str) else [],
        [(str(pair.get("name", "")).strip(), str(pair.get("value", ""))) for pair in found],
    )


def _without_blanks(value: Any) -> Any:
    """Return a JSON value without blank options, but keep the empty value of a query parameter."""
    if isinstance(value, Mapping):
        kept = {name: _without_blanks(inner) for name, inner in value.items()}
        is_empty_value = not _is_blank(kept.get("name")) and value.get("value") == ""
        return {name: inner for name, inner in kept.items() if not _is_blank(inner)} | (
            {"value": ""} if is_empty_value else {}
        )
    if isinstance(value, list):
        return [inner for inner in map(_without_blanks, value) if not _is_blank(inner)]
    return value


def _is_blank(value: Any) -> bool:
    return value is None or value == {} or (isinstance(value, str) and not value.strip())


def _validate(given: Mapping[str, Any], warnings: Iterable[str]) -> None:
    errors: Iterable[ValidationError] = _validator().iter_errors(given)
    messages = {_describe(cause) for error in errors for cause in _relevant_errors(error)}
    if messages:
        raise ConfigError(" ".join([*sorted(messages), *warnings]))


def _reject_invalid_unicode(given: Mapping[str, Any]) -> None:
    for name in ("workspace_id", "tag_id", "remote_query", "additional_accounts"):
        if any(
            "\ud800" <= letter <= "\udfff"
            for letter in json.dumps(given.get(name), ensure_ascii=False)
        ):
            raise ConfigError(f"{name} contains an invalid Unicode character. Re-enter it.")


def _relevant_errors(error: ValidationError) -> Iterable[ValidationError]:
    """Return the errors to report; for an option with several forms, those of the selected one."""
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator != "oneOf":
        # The forms of an option already require an object.
        return [] if error.validator == "type" and "oneOf" in schema else [error]
    forms: Any = error.validator_value
    modes = [form["properties"]["mode"]["const"] for form in forms]
    mode = error.instance.get("mode") if isinstance(error.instance, Mapping) else None
    if mode not in modes:
        return [error]
    return [cause for cause in error.context or [] if cause.schema_path[0] == modes.index(mode)]


@lru_cache(maxsize=1)
def _spec() -> dict[str, Any]:
    content = pkgutil.get_data("source_truto_segments", "spec.json")
    if content is None:
        raise FileNotFoundError("source_truto_segments/spec.json")
    spec: dict[str, Any] = json.loads(content)["connectionSpecification"]
    return spec


@lru_cache(maxsize=1)
def _validator() -> Draft7Validator:
    return Draft7Validator(_spec())


def _describe(error: ValidationError) -> str:
    """Return a sentence that names the field as the form does."""
    schema: dict[str, Any] = dict(error.schema) if isinstance(error.schema, Mapping) else {}
    limit: Any = error.validator_value
    path = list(error.absolute_path)
    if error.validator == "required":
        given: Any = error.instance
        missing = [name for name in limit if name not in given]
        return " ".join(
            _missing(_field_label(schema["properties"][name], [*path, name])) for name in missing
        )
    # In a list, the value shows which entry is wrong.
    value = f'; it is "{excerpt(error.instance)}"' if path and isinstance(path[-1], int) else ""
    label = _field_label(schema, path)
    rule = {
        "pattern": f"must be {schema.get('pattern_descriptor')}{value}",
        "type": f"must be {TYPE_NAMES.get(str(limit), limit)}{_example_of(path)}",
        "minimum": f"must be at least {limit}",
        "maximum": f"must be at most {limit}",
        "enum": f"must be one of {_join(limit)}",
        "oneOf": f"must have a mode, one of {_modes(limit)}. For example: {_mode_example(error)}",
        "minLength": "is empty",
    }.get(str(error.validator), f"is not valid: {error.message}")
    return _missing(label) if error.validator == "minItems" else f"{label} {rule}."


def _missing(label: str) -> str:
    if not label.endswith(".ids)"):
        return f"{label} is missing."
    return f'{label} are missing: the mode "listed" needs at least one.'


def _example_of(path: Sequence[str | int]) -> str:
    """Return an example for a field that must be a list; "" for any other field."""
    example = _EXAMPLES.get(str(path[-1])) if path else None
    return f", for example {json.dumps(example)}" if example else ""


def _mode_example(error: ValidationError) -> str:
    """Return the object that the user probably meant with a bare mode or a list of IDs."""
    given: Any = error.instance
    mode = given.strip().lower() if isinstance(given, str) else ""
    if mode == "listed" or isinstance(given, list):
        return json.dumps({"mode": "listed", "ids": _EXAMPLES["ids"]})
    return json.dumps({"mode": "none" if mode == "none" else "all"})


def _modes(forms: Any) -> str:
    is_form = isinstance(forms, list) and all("properties" in form for form in forms)
    return _join([form["properties"]["mode"]["const"] for form in forms] if is_form else [])


def _join(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


def _field_label(schema: Mapping[str, Any], path: Sequence[str | int]) -> str:
    """Return a field's title and name, and the entry of a list that it belongs to."""
    at = next((at for at, part in enumerate(path) if isinstance(part, int)), len(path))
    name, inner = ".".join(map(str, path[:at])), ".".join(map(str, path[at + 1 :]))
    if at < len(path):
        entry = f"{int(path[at]) + 1} of {name}"
        return f"{schema['title']} ({inner}) of entry {entry}" if inner else f"Entry {entry}"
    return f"{schema['title']} ({name})" if "title" in schema else name


def _token(value: str) -> str:
    token = _BEARER_PREFIX.sub("", value.strip())
    if not token:
        raise ConfigError("API token (token) is empty.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            "API token (token) contains characters that are not valid in a token, such as spaces "
            "or line breaks. Copy it again from Truto."
        )
    return token


def _api_url(value: str) -> str:
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        # Reject here what requests would reject later, while the user sees the form.
        requests.Request("GET", url).prepare()
        (host or "").encode("idna")
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(
            f"API URL (api_url) must be the URL of a Truto API, such as {DEFAULT_API_URL}."
        )
    if _NOT_IN_A_BASE.search(_decoded(url)):
        raise ConfigError(
            "API URL (api_url) must be a base URL, without a query, a fragment, a dot segment, a "
            "backslash, a space or a control character."
        )
    if "@" in parts.netloc:
        raise ConfigError("API URL (api_url) must not contain a user name or password.")
    if parts.scheme != "https" and not is_loopback(host):
        raise ConfigError(
            "API URL (api_url) must begin with https: the API token would be sent unencrypted."
        )
    return url


def _decoded(url: str) -> str:
    """Return a URL without percent-encoding, however often a server would decode it."""
    while (decoded := unquote(url)) != url:
        url = decoded
    return url


def _account_filter(accounts: Mapping[str, Any]) -> AccountFilter:
    # People write labels such as Customer.io; replace the known vendors' labels with their names.
    spellings = {
        vendor.name if (vendor := vendor_of(text.lower())) else text.lower(): text
        for text in _strings(accounts.get("integrations"))
    }
    tenant_ids, shard = _strings(accounts.get("tenant_ids")), _shard(accounts.get("shard"))
    return AccountFilter(frozenset(spellings), tenant_ids, shard, spellings)


def _shard(value: str | None) -> Shard | None:
    text = (value or "").strip()
    if not text:
        return None
    number, count = map(int, text.split("/"))
    if number > count:
        raise ConfigError(
            f"Shard (additional_accounts.shard) is {text}, but there are only {count}."
        )
    return Shard(number, count)


def _optional_integer(value: float | None) -> int | None:
    """Return an integer; JSON Schema accepts 10.0 as one."""
    return None if value is None else int(value)


def _strings(values: Iterable[str] | None) -> frozenset[str]:
    return frozenset(value.strip() for value in values or [] if value.strip())


def _optional_string(value: str | None) -> str | None:
    return (value or "").strip() or None
