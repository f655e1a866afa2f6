"""The frozen, typed form of the user's configuration."""

import ipaddress
import json
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.airbyte_secrets_utils import add_to_secrets, filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from jsonschema import Draft7Validator, ValidationError

from source_truto_segments.envelope import can_be_sent

DEFAULT_API_URL = "https://api.truto.one"
DEFAULT_NUM_WORKERS = 20
# Truto's names of the marketing tools whose segments it has.
INTEGRATIONS = frozenset(
    {"activecampaign", "beehiiv", "brevo", "customerio", "flodesk", "klaviyo", "mailerlite"}
)

# A token that was copied with the head of the header that it is sent in.
_PASTED_SCHEME = re.compile(r"Bearer(\s+|$)", re.IGNORECASE)


class ConfigError(AirbyteTracedException):
    """A configuration that cannot be used; its message names the field and what it must be."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message=message, internal_message=message, failure_type=FailureType.config_error
        )


@dataclass(frozen=True)
class AdditionalAccounts:
    """Which accounts are read beside the first.

    Attributes:
        mode: "none", "listed" or "all".
        ids: The listed accounts, UUIDs in lower case.
        integrations: Of all accounts, those of these integrations.
        tenant_ids: Of all accounts, those of these tenants; empty for all tenants.
    """

    mode: str = "none"
    ids: tuple[str, ...] = ()
    integrations: frozenset[str] = INTEGRATIONS
    tenant_ids: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "AdditionalAccounts":
        """Reads the option as the user filled it in; the spec has checked its form."""
        if raw["mode"] == "listed":
            return cls("listed", tuple(id_.strip().lower() for id_ in raw["ids"]))
        if raw["mode"] == "all":
            integrations = _texts(raw.get("integrations"))
            return cls(
                "all",
                integrations=frozenset(name.lower() for name in integrations) or INTEGRATIONS,
                tenant_ids=_texts(raw.get("tenant_ids")),
            )
        return cls()


@dataclass(frozen=True)
class Config:
    """What the user configured, trimmed and complete.

    Attributes:
        token: The API token of one Truto environment.
        integrated_account_id: The account to read, a UUID in lower case.
        workspace_id: Only this workspace; None for all.
        tag_id: Only segments with this tag; None for all.
        page_size: Records to ask for in one request; None for the vendor's default.
        remote_query: Names and values that Truto hands to the vendor untouched.
        additional_accounts: Which accounts are read beside the first.
        skip_failed_accounts: Whether an account that cannot be read is a warning, not a failure.
        num_workers: How many accounts are read side by side.
        api_url: The address of the Truto API, without a slash at its end.
    """

    token: str = field(repr=False)
    integrated_account_id: str
    workspace_id: str | None = None
    tag_id: str | None = None
    page_size: int | None = None
    remote_query: tuple[tuple[str, str], ...] = ()
    additional_accounts: AdditionalAccounts = AdditionalAccounts()
    skip_failed_accounts: bool = False
    num_workers: int = DEFAULT_NUM_WORKERS
    api_url: str = DEFAULT_API_URL

    @property
    def named_account_ids(self) -> tuple[str, ...]:
        """The accounts that the configuration names, each once."""
        ids = (self.integrated_account_id, *self.additional_accounts.ids)
        return tuple(dict.fromkeys(ids))

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "Config":
        """Reads the configuration as Airbyte hands it over.

        White space around pasted values is forgiven, keys that the spec does not know are ignored,
        and a null is a field left out.

        Raises:
            ConfigError: If a field is missing or cannot be used.
        """
        given = {name: value for name, value in raw.items() if value is not None}
        _validate(given)
        _refuse_surrogates(given)
        return cls(
            token=_token(given["token"]),
            integrated_account_id=given["integrated_account_id"].strip().lower(),
            workspace_id=_optional_text(given.get("workspace_id")),
            tag_id=_optional_text(given.get("tag_id")),
            page_size=_whole(given.get("page_size")),
            remote_query=tuple(
                (pair["name"].strip(), pair["value"]) for pair in given.get("remote_query", [])
            ),
            additional_accounts=AdditionalAccounts.parse(
                given.get("additional_accounts", {"mode": "none"})
            ),
            skip_failed_accounts=given.get("on_account_error") == "skip",
            num_workers=int(given.get("num_workers", DEFAULT_NUM_WORKERS)),
            api_url=_api_url(given.get("api_url", DEFAULT_API_URL)),
        )


def _validate(given: Mapping[str, Any]) -> None:
    errors: Iterable[ValidationError] = _validator().iter_errors(given)
    complaints = {_complaint(telling) for error in errors for telling in _telling(error)}
    if complaints:
        raise ConfigError(filter_secrets(" ".join(sorted(complaints))))


def _refuse_surrogates(given: Mapping[str, Any]) -> None:
    for name in ("workspace_id", "tag_id", "remote_query", "additional_accounts"):
        if not can_be_sent(json.dumps(given.get(name), ensure_ascii=False)):
            raise ConfigError(f"{name} holds half of a character. Type its text again.")


def _telling(error: ValidationError) -> Iterable[ValidationError]:
    """The errors to tell: of an option with several forms, those of the form that was chosen."""
    if error.validator != "oneOf":
        return [error]
    forms: Any = error.validator_value
    modes = [form["properties"]["mode"]["const"] for form in forms]
    if not isinstance(error.instance, Mapping):
        return []  # that it must be an object is told by another error
    mode = error.instance.get("mode")
    if mode not in modes:
        return [error]
    return [cause for cause in error.context or [] if cause.schema_path[0] == modes.index(mode)]


@lru_cache(maxsize=1)
def _validator() -> Draft7Validator:
    content = pkgutil.get_data("source_truto_segments", "spec.json")
    if content is None:
        raise FileNotFoundError("source_truto_segments/spec.json")
    return Draft7Validator(json.loads(content)["connectionSpecification"])


def _complaint(error: ValidationError) -> str:
    """One sentence in the words of the form that the user filled in."""
    schema: dict[str, Any] = dict(error.schema) if isinstance(error.schema, Mapping) else {}
    limit: Any = error.validator_value
    if error.validator == "required":
        given: Any = error.instance
        missing = [name for name in limit if name not in given]
        return " ".join(
            f"{_named(schema['properties'][name], name)} is missing." for name in missing
        )
    name = ".".join(str(part) for part in error.absolute_path)
    must = {
        "pattern": f"must be {schema.get('pattern_descriptor')}",
        "type": f"must be of the type {limit}",
        "minimum": f"must be at least {limit}",
        "maximum": f"must be at most {limit}",
        "enum": f"must be one of {_listing(limit)}",
        "oneOf": f"must have a mode, one of {_modes(limit)}",
        "minLength": "is empty",
        "minItems": "is empty",
    }.get(str(error.validator), f"cannot be used: {error.message}")
    return f"{_named(schema, name)} {must}."


def _modes(forms: Any) -> str:
    is_form = isinstance(forms, list) and all("properties" in form for form in forms)
    return _listing([form["properties"]["mode"]["const"] for form in forms] if is_form else [])


def _listing(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


def _named(schema: Mapping[str, Any], name: str) -> str:
    return f"{schema['title']} ({name})" if "title" in schema else name


def _token(value: str) -> str:
    token = _PASTED_SCHEME.sub("", value.strip())
    # The CDK masks the value as it was typed; what is sent is the trimmed one.
    if token and filter_secrets(token) == token:
        add_to_secrets(token)
    if not token:
        raise ConfigError("API token (token) is empty.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            "API token (token) holds characters that no token has, such as spaces or line breaks "
            "in its middle. Copy it again from Truto."
        )
    return token


def _api_url(value: str) -> str:
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        # What cannot be made a request of is told here, in front of the form.
        requests.Request("GET", url).prepare()
        (host or "").encode("idna")
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ConfigError(
            f"API URL (api_url) must be the address of a Truto API, such as {DEFAULT_API_URL}."
        )
    if parts.username or parts.password:
        raise ConfigError("API URL (api_url) must hold no user name or password.")
    if parts.scheme != "https" and not _is_loopback(host):
        raise ConfigError(
            "API URL (api_url) must begin with https: the API token would cross the network in "
            "the clear."
        )
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _whole(value: float | None) -> int | None:
    """JSON Schema takes 10.0 for a whole number, too."""
    return None if value is None else int(value)


def _texts(values: Iterable[str] | None) -> frozenset[str]:
    return frozenset(value.strip() for value in values or [] if value.strip())


def _optional_text(value: str | None) -> str | None:
    return (value or "").strip() or None
