"""The configuration read from what Airbyte hands over."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.config import Config, ConfigError

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
FLAT: dict[str, Any] = {"token": "t0ken", "integrated_account_id": ACCOUNT_ID}


def test_given_the_flat_form_when_parsed_then_all_else_has_a_default() -> None:
    config = Config.parse(FLAT)

    assert (config.token, config.integrated_account_id) == ("t0ken", ACCOUNT_ID)
    assert (config.workspace_id, config.tag_id, config.page_size) == (None, None, None)
    assert config.remote_query == ()
    assert config.api_url == "https://api.truto.one"


def test_given_unknown_keys_and_nulls_when_parsed_then_they_are_ignored() -> None:
    given = {**FLAT, "old_field": {"a": 1}, "workspace_id": None, "page_size": None, "tag_id": " "}
    assert Config.parse(given) == Config.parse(FLAT)


@pytest.mark.parametrize("token", [" t0ken\n", "Bearer t0ken", "\tBearer  t0ken "])
def test_given_a_pasted_token_when_parsed_then_it_is_trimmed(token: str) -> None:
    assert Config.parse({**FLAT, "token": token}).token == "t0ken"


def test_given_a_token_when_shown_then_it_is_not() -> None:
    assert "t0ken" not in repr(Config.parse(FLAT))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"token": ""}, "API token (token) is empty."),
        ({"token": "Bearer "}, "API token (token) is empty."),
        ({"token": "a b"}, "holds characters that no token has"),
        ({"token": "a\nb"}, "holds characters that no token has"),
        ({"token": "tökén"}, "holds characters that no token has"),
        ({"token": 5}, "API token (token) must be of the type string."),
        ({"integrated_account_id": "acme"}, "must be a UUID"),
        ({"integrated_account_id": f"{ACCOUNT_ID} {ACCOUNT_ID}"}, "must be a UUID"),
        ({"page_size": 0}, "Page size (page_size) must be at least 1."),
        ({"page_size": 1.5}, "Page size (page_size) must be of the type integer."),
        ({"remote_query": {"a": "b"}}, "must be of the type array."),
        ({"remote_query": [{"name": "a"}]}, "Value (value) is missing."),
        ({"remote_query": [{"name": "", "value": "b"}]}, "Name (remote_query.0.name) is empty."),
        ({"api_url": "api.truto.one"}, "API URL (api_url) must be the address of a Truto API"),
        ({"api_url": "ftp://api.truto.one"}, "API URL (api_url) must be the address"),
        ({"api_url": "https://"}, "API URL (api_url) must be the address"),
        ({"api_url": "https://[::1"}, "API URL (api_url) must be the address"),
        ({"api_url": "https://x:99999"}, "API URL (api_url) must be the address"),
        ({"api_url": "https://x/?a=b"}, "API URL (api_url) must be the address"),
        ({"api_url": "https://u:p@x"}, "no user name or password"),
        ({"api_url": "http://api.truto.one"}, "must begin with https"),
        ({"api_url": "http://10.0.0.1"}, "must begin with https"),
        ({"api_url": "http://localhost.evil.example"}, "must begin with https"),
    ],
)
def test_given_a_wrong_field_when_parsed_then_a_sentence_names_it(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as wrong:
        Config.parse({**FLAT, **fields})
    assert says in str(wrong.value)


def test_given_nothing_when_parsed_then_each_missing_field_is_named_once() -> None:
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
def test_given_an_address_when_parsed_then_it_is_trimmed(url: str, used: str) -> None:
    assert Config.parse({**FLAT, "api_url": url}).api_url == used


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "token",
    "integrated_account_id",
    "workspace_id",
    "tag_id",
    "page_size",
    "remote_query",
    "api_url",
]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.booleans())
def test_given_any_configuration_when_parsed_then_it_is_one_or_a_sentence_says_why(
    fields: dict[str, Any], complete: bool
) -> None:
    try:
        config = Config.parse({**(FLAT if complete else {}), **fields})
    except ConfigError as wrong:
        assert str(wrong).endswith(".")
    else:
        assert config.token
