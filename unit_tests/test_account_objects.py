"""Integrated accounts as Truto describes them, and what is kept of them."""

import json
from typing import Any

import pytest

from source_truto_segments.truto.account_objects import (
    account_record,
    is_account_id,
    parse_account,
    parse_account_list,
)
from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH
from source_truto_segments.truto.responses import MalformedResponseError

ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"


@pytest.mark.parametrize("value", [ID, ID.upper()])
def test_account_id(value: str) -> None:
    """A UUID in any case is an account's ID."""
    assert is_account_id(value)


@pytest.mark.parametrize("value", [None, 5, ["a"], "", ID[1:], f"{ID}/..", f" {ID}", f"{ID}\n"])
def test_no_account_id(value: object) -> None:
    """Anything else is not, and does not become a part of a path."""
    assert not is_account_id(value)


def test_object() -> None:
    """The object of an account becomes a page of one record, which may hold U+0000."""
    page = parse_account(json.dumps({"id": ID.upper(), "tenant_id": "\0"}).encode(), ID)
    assert [(record["id"], record["tenant_id"]) for record in page.records] == [(ID, "\0")]
    assert page.may_have_nul is True
    assert page.next_cursor is None


@pytest.mark.parametrize(
    ("content", "difference"),
    [
        ({}, "the response is not an integrated account: it has no id"),
        ({"id": 5}, "the response is not an integrated account: it has no id"),
        ({"id": ID[::-1]}, "the response is another integrated account"),
    ],
)
def test_other_object(content: dict[str, Any], difference: str) -> None:
    """An object without an ID, or with another one, is malformed."""
    with pytest.raises(MalformedResponseError) as caught:
        parse_account(json.dumps(content).encode(), ID)
    assert str(caught.value) == difference


def test_left_out() -> None:
    """Of an entry that is not selected, only what a warning needs is kept."""
    named = {"name": "brevo", "label": "Brevo"}
    entries = [
        {"id": "a", "tenant_id": "t", "integration": named, "context": {"secret": "x"}},
        {"id": "b"},
    ]
    page = parse_account_list(json.dumps({"result": entries}).encode(), lambda _: False)
    assert page.records == []
    assert page.left_out == [
        {"id": "a", "tenant_id": "t", "integration": "brevo", "integration_label": "Brevo"},
        {"id": "b", "tenant_id": None, "integration": None, "integration_label": None},
    ]


def test_parts_of_errors() -> None:
    """Texts and objects in an error are cut like excerpts; numbers stay as they are."""
    error = {"resource": "x" * 5_000, "method": 5, "missing_scopes": ["y" * 5_000] * 200, "z": 1}
    forbidden = account_record({"id": ID, "last_forbidden_error": error})["last_forbidden_error"]
    assert forbidden.keys() == {"resource", "method", "missing_scopes"}
    assert len(forbidden["resource"]) == MAX_EXCERPT_LENGTH
    assert forbidden["method"] == 5
    assert {len(scope) for scope in forbidden["missing_scopes"]} == {MAX_EXCERPT_LENGTH}
    assert len(forbidden["missing_scopes"]) == 100
