"""The parsing of the configuration that Airbyte passes."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.config import AccountFilter, Config, ConfigError, Shard

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
OTHER_ID = "0b0e8d65-4b5c-4d1e-9a77-62a9f3f03c2f"
FLAT: dict[str, Any] = {"token": "t0ken", "integrated_account_id": ACCOUNT_ID}


def test_flat_form() -> None:
    """All fields except the required ones have a default."""
    config = Config.parse(FLAT)

    assert (config.token, config.integrated_account_id) == ("t0ken", ACCOUNT_ID)
    assert (config.workspace_id, config.tag_id, config.page_size) == (None, None, None)
    assert config.remote_query == ()
    assert (config.additional_ids, config.account_list) == ((), None)
    assert tuple(config.configured_account_ids) == (ACCOUNT_ID,)
    assert not config.skip_failed_accounts
    assert config.num_workers is None
    assert config.api_url == "https://api.truto.one"


def test_unknown_keys_and_nulls() -> None:
    """The parser ignores unknown keys and nulls."""
    given = {**FLAT, "old_field": {"a": 1}, "workspace_id": None, "page_size": None, "tag_id": " "}
    assert Config.parse(given) == Config.parse(FLAT)


@pytest.mark.parametrize("blank", ["", " ", None])
def test_blank_options(blank: str | None) -> None:
    """Blanks in optional fields, as forms and tools leave them, count as missing at any depth."""
    options = ("workspace_id", "tag_id", "page_size", "num_workers", "on_account_error", "api_url")
    given = {
        **FLAT,
        **dict.fromkeys(options, blank),
        "remote_query": [{"name": blank, "value": blank}, {"name": "sort", "value": ""}, blank],
        "additional_accounts": {"mode": "all", "integrations": [blank], "tenant_ids": blank},
    }
    config = Config.parse(given)

    assert config == Config.parse(
        {**FLAT, "additional_accounts": {"mode": "all"}, "remote_query": given["remote_query"][1:2]}
    )
    assert config.remote_query == (("sort", ""),)
    assert Config.parse({**FLAT, "additional_accounts": {"mode": blank}}) == Config.parse(FLAT)


@pytest.mark.parametrize("token", [" t0ken\n", "Bearer t0ken", "\tBearer  t0ken "])
def test_pasted_token(token: str) -> None:
    """The parser removes blanks and a leading Bearer from a pasted token."""
    assert Config.parse({**FLAT, "token": token}).token == "t0ken"


def test_printed_token() -> None:
    """A printed configuration does not show its token."""
    assert "t0ken" not in repr(Config.parse(FLAT))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token": ""}, "API token (token) is missing."),
        ({"token": " "}, "API token (token) is missing."),
        ({"token": "Bearer "}, "API token (token) is empty."),
        ({"token": "a b"}, "contains characters that are not valid in a token"),
        ({"token": "a\nb"}, "contains characters that are not valid in a token"),
        ({"token": "tökén"}, "contains characters that are not valid in a token"),
        ({"token": 5}, "API token (token) must be a text."),
        ({"integrated_account_id": "acme"}, "must be a UUID"),
        ({"integrated_account_id": f"{ACCOUNT_ID} {ACCOUNT_ID}"}, "must be a UUID"),
        ({"page_size": 0}, "Page size (page_size) must be at least 1."),
        ({"page_size": 1.5}, "Page size (page_size) must be a whole number."),
        ({"num_workers": 0}, "Concurrent accounts (num_workers) must be at least 1."),
        ({"num_workers": 201}, "Concurrent accounts (num_workers) must be at most 200."),
        (
            {"on_account_error": "stop"},
            "On account error (on_account_error) must be one of fail, skip.",
        ),
        (
            {"additional_accounts": {"mode": "some"}},
            "Additional accounts (additional_accounts) must have a mode, one of none, listed, all.",
        ),
        (
            {"additional_accounts": {"mode": "listed", "ids": [ACCOUNT_ID, ACCOUNT_ID, "acme"]}},
            (
                "Entry 3 of additional_accounts.ids must be a UUID, for example "
                '62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65; it is "acme".'
            ),
        ),
        (
            {"additional_accounts": {"mode": "listed", "ids": ["t0ken"]}},
            '3c2f1b0e8d65; it is "****".',
        ),
        (
            {"additional_accounts": {"mode": "listed"}},
            (
                "Integrated account IDs (additional_accounts.ids) are missing: the mode "
                '"listed" needs at least one.'
            ),
        ),
        (
            {"additional_accounts": {"mode": "listed", "ids": []}},
            (
                "Integrated account IDs (additional_accounts.ids) are missing: the mode "
                '"listed" needs at least one.'
            ),
        ),
        (
            {"additional_accounts": {"mode": "listed", "ids": [5]}},
            "Entry 1 of additional_accounts.ids must be a text.",
        ),
        ({"workspace_id": "\ud800"}, "workspace_id contains an invalid Unicode character."),
        ({"remote_query": {"a": "b"}}, "must be a list, for example ["),
        ({"additional_accounts": "all"}, "must have a mode, one of none, listed, all."),
        ({"remote_query": [{"name": "a"}]}, "Value (value) of entry 1 of remote_query is missing."),
        (
            {"remote_query": [{"name": "", "value": "b"}]},
            "Name (name) of entry 1 of remote_query is missing.",
        ),
        ({"api_url": "api.truto.one"}, "API URL (api_url) must be the URL of a Truto API"),
        ({"api_url": "ftp://api.truto.one"}, "API URL (api_url) must be the URL"),
        ({"api_url": "https://"}, "API URL (api_url) must be the URL"),
        ({"api_url": "https://[::1"}, "API URL (api_url) must be the URL"),
        ({"api_url": "https://x:99999"}, "API URL (api_url) must be the URL"),
        ({"api_url": "https://u:p@x"}, "must not contain a user name or password"),
        (
            {"api_url": "http://api.truto.one"},
            "must begin with https: the API token would be sent unencrypted.",
        ),
        (
            {"api_url": "http://10.0.0.1"},
            "must begin with https: the API token would be sent unencrypted.",
        ),
        (
            {"api_url": "http://localhost.evil.example"},
            "must begin with https: the API token would be sent unencrypted.",
        ),
    ],
)
def test_invalid_field(fields: dict[str, Any], message: str) -> None:
    """The error for an invalid field names the field."""
    with pytest.raises(ConfigError) as wrong:
        Config.parse({**FLAT, **fields})
    assert message in str(wrong.value)


def test_empty_configuration() -> None:
    """The error for an empty configuration lists each missing field once."""
    with pytest.raises(ConfigError) as wrong:
        Config.parse({})
    assert str(wrong.value) == (
        "API token (token) is missing. Integrated account ID (integrated_account_id) is missing."
    )


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("https://truto.acme.example/base/", "https://truto.acme.example/base"),
        (" https://api.truto.one ", "https://api.truto.one"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_api_url(url: str, used: str) -> None:
    """The parser removes blanks and a trailing slash from the API URL."""
    assert Config.parse({**FLAT, "api_url": url}).api_url == used


@pytest.mark.parametrize(("given", "parsed"), [(1, 1), (200, 200), (8.0, 8)])
def test_num_workers(given: float, parsed: int) -> None:
    """num_workers is an integer from 1 to 200, and can be written as a float."""
    config = Config.parse({**FLAT, "num_workers": given})
    assert config.num_workers == parsed
    assert type(config.num_workers) is int


def test_listed_accounts() -> None:
    """Each listed account is read once."""
    ids = [f" {OTHER_ID.upper()}\n", ACCOUNT_ID, OTHER_ID]
    config = Config.parse({**FLAT, "additional_accounts": {"mode": "listed", "ids": ids}})

    assert config.additional_ids == (OTHER_ID, ACCOUNT_ID, OTHER_ID)
    assert tuple(config.configured_account_ids) == (ACCOUNT_ID, OTHER_ID)


@pytest.mark.parametrize("selection", [{}, {"integrations": [], "tenant_ids": []}])
def test_all_accounts(selection: dict[str, Any]) -> None:
    """The mode all filters out nothing by default."""
    config = Config.parse({**FLAT, "additional_accounts": {"mode": "all", **selection}})

    assert config.account_list == AccountFilter()
    assert tuple(config.configured_account_ids) == (ACCOUNT_ID,)


def test_selected_accounts() -> None:
    """The parser trims the integrations and tenants to read, and lowercases the integrations."""
    selection = {"integrations": [" Klaviyo", "brevo", " "], "tenant_ids": ["Acme ", ""]}
    config = Config.parse({**FLAT, "additional_accounts": {"mode": "all", **selection}})
    assert config.account_list == AccountFilter(
        integrations=frozenset({"klaviyo", "brevo"}), tenant_ids=frozenset({"Acme"})
    )


@given(st.uuids(), st.integers(1, 99))
def test_any_shard(account_id: UUID, count: int) -> None:
    """Every account is in exactly one shard, whatever the number of shards."""
    found = [n for n in range(1, count + 1) if Shard(n, count).contains(str(account_id))]
    assert len(found) == 1


def test_known_shards() -> None:
    """The shard of an account never changes."""
    # Another hash would move accounts between the users' connections.
    assert [Shard(n, 5).contains(ACCOUNT_ID) for n in range(1, 6)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert [Shard(n, 5).contains(OTHER_ID) for n in range(1, 6)] == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_configured_account_in_shard() -> None:
    """Only the shard that contains the configured account reads it, as for any account."""
    for number in range(1, 6):
        accounts = {"mode": "all", "shard": f" {number}/5 "}
        config = Config.parse({**FLAT, "additional_accounts": accounts})
        assert config.account_list == AccountFilter(shard=Shard(number, 5))
        assert config.shard_count == 5
        is_home = Shard(number, 5).contains(ACCOUNT_ID)
        assert list(config.configured_account_ids) == ([ACCOUNT_ID] if is_home else [])
