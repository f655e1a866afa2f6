"""What a server can do with a request, and what the connector believes of its response."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.models import Status
from requests.adapters import HTTPAdapter

from integration_tests.destination import tombstones
from integration_tests.support import (
    ACCOUNT_ID,
    ALL,
    ALL_STREAMS,
    Result,
    Serve,
    account,
    catalog,
    check,
    config,
    id_of,
    listed,
    numbered_account,
    read,
)
from sandbox import Environment, Fault, Sandbox, faults
from sandbox.accounts import account_object
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.truto.transport import DeadlineAdapter

INCREMENTAL = catalog("incremental", streams=ALL_STREAMS)
SECRET = "internal-page-of-another-host"


def deleted(result: Result) -> list[Any]:
    return [row for stream in ALL_STREAMS for row in tombstones(result, stream)]


# --- where requests go ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://x/?",
        "https://x#",
        "https://x/?a=b",
        "https://x/#a",
        "https://x/a?/b",
        "https://x/%3f",
    ]
    + ["https://x/../y", "https://x/a/..", "https://x/./a", "https://x/%2e%2E/a", "https://x/.%2e"]
    + ["https://x/%252e%252e/a", "https://x/a%2f..%2fb", "https://x\\y", "https://x/%5cy"]
    + ["https://x/a\tb", "https://x/%00", "https://x/a b", "https://x/%0d%0aA", "https://x/\x85a"],
)
def test_api_url_that_is_no_base(url: str) -> None:
    """If a base URL would turn a path below it into another address, it is a config error."""
    with pytest.raises(ConfigError, match=r"\(api_url\) must be a base URL, without a query"):
        Config.parse(config(Sandbox(Environment()), api_url=url))


@pytest.mark.parametrize("url", ["https://@x", "https://:@x", "https://u@x", "https://u:p@x"])
def test_api_url_with_a_user(url: str) -> None:
    """A user in the URL is rejected even if its name is empty."""
    with pytest.raises(ConfigError, match="must not contain a user name or password"):
        Config.parse(config(Sandbox(Environment()), api_url=url))


@pytest.mark.parametrize("url", ["https://x:8443/a.b/..c/d@e", "https://api.truto.one"])
def test_api_url_that_is_a_base(url: str) -> None:
    """Dots in names, and an @ in a path, are allowed in a base URL."""
    assert Config.parse(config(Sandbox(Environment()), api_url=url)).api_url == url


def test_internal_host(serve: Serve) -> None:
    """A check of an address that ends with a ? sends no request to its host."""
    sandbox = serve(account())

    status, _ = check(sandbox, api_url=f"{sandbox.url}/admin?")

    assert status is Status.FAILED
    assert sandbox.requests == []


NOT_TRUTOS: dict[str, tuple[Fault, str]] = {
    "html": (faults.body(f"<html>{SECRET}", times=None), "HTTP 200; the response is not JSON)"),
    "error": (faults.body(f"<html>{SECRET}", 403, times=None), "HTTP 403)"),
    "json": (faults.body(f'{{"message": "{SECRET}"}}', 401, times=None), "HTTP 401)"),
    "list": (faults.body(f'["{SECRET}"]', 500, times=None), "HTTP 500)"),
    "result": (faults.body(f'{{"result": "{SECRET}"}}', times=None), "HTTP 200; the result is"),
    "cursor": (
        faults.body(f'{{"result": [], "next_cursor": ["{SECRET}"]}}', times=None),
        "HTTP 200; the next_cursor is not a string)",
    ),
    "no HTTP": (
        Fault(delivery=faults.Delivery(prelude=f"SSH-2.0-{SECRET}\r\n".encode()), times=None),
        "the response is not valid HTTP",
    ),
    "chunk": (
        faults.endless(
            f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}".encode(),
            b"\r\n",
            times=None,
        ),
        "the response is not valid HTTP",
    ),
}


@pytest.mark.parametrize("form", NOT_TRUTOS)
def test_foreign_body(serve: Serve, caplog: pytest.LogCaptureFixture, form: str) -> None:
    """If the host is not Truto's own, a body that lacks Truto's form is not quoted."""
    fault, shown = NOT_TRUTOS[form]
    with caplog.at_level(logging.DEBUG, "airbyte"):
        _, message = check(serve(account(), faults=[fault]))

    assert shown in str(message)
    assert SECRET not in f"{message}{caplog.text}"


@pytest.mark.usefixtures("trutos_own")
def test_truto_own_body(serve: Serve) -> None:
    """If the host is Truto's own, a firewall's answer in its place is quoted."""
    _, message = check(serve(account(), faults=[faults.body(f"<html>{SECRET}", times=None)]))

    assert SECRET in str(message)


def files(sandbox: Sandbox) -> dict[str, Any]:
    return {"config.json": config(sandbox), "catalog.json": catalog()}


@pytest.mark.parametrize("line", [SECRET, f": {SECRET}", f" {SECRET}", f'{{"{SECRET}": 1}}: 2'])
def test_head_that_is_not_valid(serve: Serve, caplog: pytest.LogCaptureFixture, line: str) -> None:
    """A line that is no header makes its response malformed, and no library logs it."""
    head = f'HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 14\r\n\r\n{{"result": []}}'
    broken = Fault(delivery=faults.Delivery(prelude=head.encode()))
    sandbox = serve(account(count=2, faults=[broken]))

    with caplog.at_level(logging.INFO):
        result = read(sandbox)

    assert len(result.records) == 2
    assert len(sandbox.requests) == 2
    assert SECRET not in f"{result.messages}{caplog.text}"


@pytest.mark.parametrize("line", ["Content-Length: 14x", "Content-Length: 2", "Content-Length: -1"])
def test_contradictory_lengths(serve: Serve, line: str) -> None:
    """A response whose end is uncertain is requested again."""
    page = '{"result": []}'
    head = f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 14\r\n\r\n{page}"
    broken = Fault(delivery=faults.Delivery(prelude=head.encode()))
    sandbox = serve(account(count=2, faults=[broken]))

    assert len(read(sandbox).records) == 2
    assert len(sandbox.requests) == 2


def test_redirect_elsewhere(serve: Serve) -> None:
    """No redirect is followed, so the token goes to no other host."""
    other = serve(account())
    sandbox = serve(account(), faults=[faults.redirect(f"{other.url}/", times=None)])

    assert "redirects are not followed" in str(read(sandbox).failure)
    assert other.requests == []


def test_netrc(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in .netrc does not replace the token."""
    path = tmp_path / "netrc"
    path.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(path))
    sandbox = serve(account())

    assert read(sandbox).ids
    expected = f"Bearer {sandbox.environment.token}"
    assert {request.headers["Authorization"] for request in sandbox.requests} == {expected}


@pytest.mark.parametrize("send", [DeadlineAdapter.send, HTTPAdapter.send])
def test_cookies(serve: Serve, monkeypatch: pytest.MonkeyPatch, send: Any) -> None:
    """No cookie is kept or sent, even if the adapter shows the session where cookies are."""
    monkeypatch.setattr(DeadlineAdapter, "send", send)
    head = {"Set-Cookie": "session=of-another-customer; Path=/"}
    first = faults.body('{"result": [{"id": "1"}], "next_cursor": "c"}', headers=head)
    other = faults.redirect("/elsewhere")
    response = faults.truto_error(500, headers=head)
    sandbox = serve(numbered_account(0, faults=[first, response, other]), numbered_account(1))

    read(sandbox, additional_accounts=listed(0, 1), num_workers=1)

    assert len(sandbox.requests) >= 4
    assert not any("Cookie" in request.headers for request in sandbox.requests)


@pytest.mark.parametrize("given", ["tok-Bearer", "Bearer tok-Bearer", " bearer\ttok-Bearer\n"])
def test_token_as_given(given: str) -> None:
    """Only a scheme at the beginning of the token is removed."""
    with Sandbox(Environment([account()], token="tok-Bearer")) as sandbox:
        assert read(sandbox, token=given).ids
    assert sandbox.requests[0].headers["Authorization"] == "Bearer tok-Bearer"


# --- whose a response is --------------------------------------------------------------------------


def test_another_accounts_object(serve: Serve) -> None:
    """An object of another account is a failure: it adds no row, and nothing is deleted."""
    sandbox = serve(*map(numbered_account, range(2)))
    arguments: Any = {"configured": INCREMENTAL, "additional_accounts": listed(0, 1)}
    state = read(sandbox, **arguments).last_state
    wrong = faults.body(
        json.dumps(account_object(sandbox.environment.accounts[1])),
        kind="account",
        when=lambda request: request.account_id == id_of(0),
        times=None,
    )
    sandbox.environment.faults = [wrong]

    result = read(sandbox, state=state, **arguments)

    assert result.records_of("integrated_accounts") == []
    assert f"Reading integrated account {id_of(0)} failed: the response is malformed" in str(
        result.errors
    )
    assert "the response is another integrated account" in str(result.errors)
    assert result.statuses_of("integrated_accounts") == ["STARTED", "INCOMPLETE"]
    sandbox.environment.faults = []
    third = read(sandbox, state=result.last_state, **arguments)
    assert (third.failure, deleted(result), deleted(third)) == (None, [], [])


@pytest.mark.parametrize("id_", ["../integrated-account", "x", 5, "", f"{ACCOUNT_ID}/x", "\u0661"])
def test_list_with_an_invalid_id(
    serve: Serve, caplog: pytest.LogCaptureFixture, id_: str | int
) -> None:
    """An invalid ID in the list is reported, reaches no path, and prevents deletions."""
    sandbox = serve(*map(numbered_account, range(3)))
    arguments: Any = {"configured": INCREMENTAL, "additional_accounts": ALL}
    state = read(sandbox, **arguments).last_state
    entries = [account_object(each) for each in sandbox.environment.accounts[:2]]
    entries.append({**entries[0], "id": id_})
    del sandbox.environment.accounts[2]
    sandbox.environment.faults = [
        faults.body(json.dumps({"result": entries}), kind="accounts", times=None)
    ]
    sandbox.clear()

    result = read(sandbox, state=state, **arguments)

    assert result.failure is None
    assert "has no valid ID or no integration and is not read" in caplog.text
    assert deleted(result) == []
    assert {request.account_id for request in sandbox.requests} <= {None, id_of(0), id_of(1)}
    sandbox.environment.faults = []
    after = read(sandbox, state=result.last_state, **arguments)
    assert [row["id"] for row in deleted(after)] == [id_of(2)]


def test_state_with_an_invalid_id(serve: Serve) -> None:
    """An invalid ID in a state that somebody has edited reaches no path either."""
    sandbox = serve(*map(numbered_account, range(2)))
    arguments: Any = {"configured": INCREMENTAL, "additional_accounts": ALL}
    state = read(sandbox, **arguments).last_state
    changed = json.loads(json.dumps(state).replace(id_of(1), "../unified/x"))
    sandbox.clear()

    read(sandbox, state=changed, **arguments)

    assert not any(request.kind == "other" for request in sandbox.requests)


# --- records that cannot be read ------------------------------------------------------------------

READABLE = ["7" * 10_000, "-" + "7" * 10_000, "1e999999", "NaN", "-Infinity"]
UNREADABLE = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "UTF-8": b'"\xff"',
    "control character": b'"a\nb"',
    "zero": b"01",
    "word": b"undefined",
    "nothing": b"",
    "deep objects": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
}


def page_with(value: bytes, name: str = "extra") -> Fault:
    inner = b'{"id": "1", "name": "], \\"[{"}, {"id": "2", "%s": %s}, {"id": "3", "extra": [{}]}'
    return faults.body(b'{"result": [%s], "next_cursor": null}' % (inner % (name.encode(), value)))


@pytest.mark.parametrize("value", READABLE, ids=lambda value: value[:9])
@pytest.mark.parametrize("name", ["extra", "name", "total_contacts", "created_at"])
def test_any_number(serve: Serve, value: str, name: str) -> None:
    """Numbers of any length are read, and so are NaN and -Infinity."""
    result = read(serve(account(faults=[page_with(value.encode(), name)])))

    assert result.failure is None
    assert result.ids == ["1", "2", "3"]
    (_, record, _) = result.of_type("RECORD")
    changed = [change["field"] for change in record.get("meta", {}).get("changes", [])]
    assert (changed == []) is (record["data"].get(name) == value)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_one_bad_record(serve: Serve, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """A record that cannot be parsed is reported; the others are read, and nothing is deleted."""
    configured = catalog("incremental")
    sandbox = serve(account(faults=[page_with(b"0")]))
    state = read(sandbox, configured=configured).last_state
    sandbox.environment.accounts[0].faults = [page_with(UNREADABLE[kind])]

    result = read(sandbox, configured=configured, state=state)

    assert result.failure is None
    assert result.records == []
    assert "entries that cannot be read, or are not objects: 1." in caplog.text
    # The next sync knows all three records.
    sandbox.environment.accounts[0].faults = [page_with(b"0")]
    assert read(sandbox, configured=configured, state=result.last_state).records == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"result": [{"id": "1"}, {"id": "2", "extra": 01}',
        b'{"result": [{"id": "1"} {"id": 01}], "next_cursor": null}, "x"',
        b'{"result": [{"id": 01}], "next_cursor": 01}',
    ],
    ids=["cut", "more", "cursor"],
)
def test_bad_page(serve: Serve, body: bytes) -> None:
    """A page that is broken in any other place is requested again."""
    sandbox = serve(account(count=2, faults=[faults.body(body)]))

    assert len(read(sandbox).records) == 2
    assert len(sandbox.requests) == 2
