"""Who speaks: gateways, networks and this machine must be told apart from Truto and the vendor."""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.models import FailureType, Status

from integration_tests.support import (
    ALL,
    CERTIFICATE,
    FakeClock,
    Serve,
    account,
    catalog,
    check,
    command,
    config,
    forward,
    id_of,
    listed,
    numbered_account,
    raw_server,
    read,
    read_with,
    run,
    tls_server,
    write,
)
from sandbox import Fault, faults
from source_truto_segments import SourceTrutoSegments
from source_truto_segments import check as check_module
from source_truto_segments.truto import transport

TYPES = {"LOG", "DEBUG", "RECORD", "STATE", "TRACE"}
GATEWAY = "a gateway, firewall or proxy answered in Truto's place"
ALONE = "; nothing else got through"


def always(make: Callable[..., Fault], *arguments: Any, **how: Any) -> Fault:
    return make(*arguments, **{"times": None, **how})


# --- gateways, firewalls and proxies in between ---


@pytest.mark.parametrize("form", faults.GATEWAY_FORMS)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 503, 522])
def test_gateway_that_passes(serve: Serve, status: int, form: str) -> None:
    """A gateway's answer is retried, whatever its status, and nothing is lost."""
    result = read(serve(account(count=25, faults=[faults.gateway(status, form, times=3)])))

    assert result.failure is None
    assert len(result.ids) == 25


@pytest.mark.parametrize("status", [401, 403, 404, 503, 530])
@pytest.mark.usefixtures("trutos_own")
def test_gateway_that_stays_for_one_account(serve: Serve, status: int) -> None:
    """The other accounts are read, and the message is about the gateway, not a token or block."""
    broken = numbered_account(1, faults=[always(faults.gateway, status)])
    result = read(serve(numbered_account(0), broken, numbered_account(2)), additional_accounts=ALL)

    assert {row["integrated_account_id"] for row in result.records} == {id_of(0), id_of(2)}
    (error,) = result.errors
    assert id_of(1) in error["message"]
    assert f"{GATEWAY} (HTTP {status}; a gateway, firewall or proxy reported: " in error["message"]
    assert "<html><head><title>Blocked" in error["message"]
    assert error["failure_type"] == "transient_error"
    assert ALONE not in error["message"]
    for wrong in ("API token", "has blocked", "maintainers"):
        assert wrong not in error["message"]


def test_gateway_that_stays_for_all(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """While nothing gets through, one request probes, and one message ends the sync."""
    caplog.set_level(logging.INFO)
    accounts = [numbered_account(number) for number in range(60)]
    sandbox = serve(*accounts, faults=[always(faults.gateway, 403)])

    result = read(sandbox, additional_accounts=listed(*range(1, 60)), on_account_error="skip")

    (error,) = result.errors
    assert GATEWAY in error["message"]
    assert ALONE in error["message"]
    assert len(sandbox.requests) < 40
    assert result.statuses[-1] == "INCOMPLETE"


@pytest.mark.parametrize("kind", ["gateway", "reset", "truto"])
def test_outage_of_three_minutes(serve: Serve, kind: str) -> None:
    """An outage of everything costs time, but no account."""
    clock = FakeClock()
    down: Any = {"when": lambda _: 0 < clock.now() < 180, "times": None}
    makes: dict[str, Callable[..., Fault]] = {
        "gateway": faults.gateway, "reset": faults.reset, "truto": faults.truto_failed
    }  # fmt: skip
    first = numbered_account(0, faults=[faults.vendor_unavailable()])
    sandbox = serve(first, *map(numbered_account, range(1, 30)), faults=[makes[kind](**down)])

    # Only one worker runs: the clock must not advance while another request is in flight.
    source = SourceTrutoSegments(clock)
    result = read_with(source, sandbox, additional_accounts=ALL, num_workers=1)

    assert result.failure is None
    assert len(result.records) == 90
    assert clock.now() >= 180


# --- blame needs evidence ---


@pytest.mark.parametrize("on_account_error", ["fail", "skip"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (always(faults.token_forbidden), "Truto denied access to this account, though"),
        (always(faults.redirect, "/login"), "the response is a redirect, though"),
    ],
)
def test_refusal_of_one_account(
    serve: Serve, fault: Fault, words: str, on_account_error: str
) -> None:
    """A refusal of one account is about that account, as long as others succeed with the token."""
    broken = numbered_account(3, faults=[fault])
    sandbox = serve(*map(numbered_account, range(3)), broken, numbered_account(4))
    result = read(sandbox, additional_accounts=ALL, on_account_error=on_account_error)

    assert len({row["integrated_account_id"] for row in result.records}) == 4
    assert (result.failure is None) is (on_account_error == "skip")
    if result.failure is not None:
        assert words in str(result.failure)
        assert result.failure.failure_type is FailureType.config_error
        assert id_of(3) in str(result.failure)


@pytest.mark.parametrize("make", [faults.token_forbidden, faults.redirect, faults.token_refused])
def test_refusal_of_all(serve: Serve, make: Callable[..., Fault]) -> None:
    """If the token is refused during a sync, the sync ends with one message."""
    arguments = ("/login",) if make is faults.redirect else ()
    fault = make(*arguments, after=20, kind="segments", times=None)
    sandbox = serve(*map(numbered_account, range(60)), faults=[fault])
    result = read(sandbox, additional_accounts=ALL, on_account_error="skip", num_workers=5)

    assert result.statuses[-1] == "INCOMPLETE"
    assert "though" not in str(result.failure)
    assert len(result.errors) == 1
    assert len([r for r in sandbox.requests if r.kind == "segments"]) < 40


def test_two_lengths() -> None:
    """A response with two Content-Lengths is malformed, and no setting is blamed."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}  "
    with raw_server(head) as url:
        status, message = check_url(url)

    assert status is Status.FAILED
    assert "the response is malformed" in str(message)
    assert "api_url" not in str(message)


@pytest.mark.parametrize("status", [408, 423, 425, 499, 501, 507, 599])
@pytest.mark.parametrize("make", [faults.truto_error, faults.vendor_error])
def test_temporary_statuses(serve: Serve, make: Callable[..., Fault], status: int) -> None:
    """Temporary statuses are retried, whoever sends them."""
    result = read(serve(account(count=25, faults=[make(status, times=2)])))
    assert result.failure is None
    assert len(result.ids) == 25


def test_block(serve: Serve) -> None:
    """Truto's own 503 means a block only if it persists."""
    passing = read(serve(account(count=25, faults=[faults.account_blocked(times=3)])))
    assert passing.failure is None
    staying = read(serve(account(faults=[always(faults.account_blocked)])))
    assert "Truto has blocked this account" in str(staying.failure)
    assert sum(staying.waits) < 15


def test_payment(serve: Serve) -> None:
    """A vendor's 402 is about the customer's plan, so the account's owner must act."""
    result = read(serve(account(faults=[always(faults.vendor_error, 402)])))
    assert "The account's owner must renew or upgrade the plan" in str(result.failure)


# --- ends and cursors ---


@pytest.mark.parametrize(
    "content",
    [
        '{"result": null, "next_cursor": null}',
        '{"results": null}',
        '{"result": null, "next_cursor": ""}',
    ],
)
def test_null_list(serve: Serve, content: str) -> None:
    """Null in place of a list is an empty list."""
    result = read(serve(account(faults=[always(faults.body, content)])))
    assert result.failure is None
    assert result.ids == []


@pytest.mark.parametrize("is_partial", [False, True])
def test_end_with_its_own_cursor(
    serve: Serve, caplog: pytest.LogCaptureFixture, is_partial: bool
) -> None:
    """An empty page that returns the cursor just sent ends the list, and can be partial."""
    first = {"result": [{"id": "1"}], "next_cursor": "c", "is_partial_response": True}
    end = {"result": [], "next_cursor": "c", "is_partial_response": is_partial}
    script = [faults.body(json.dumps(page), times=None, when=when) for page, when in (
        (end, lambda request: request.param("next_cursor") == "c"), (first, None)
    )]  # fmt: skip
    sandbox = serve(account(faults=script))

    result = read(sandbox)

    assert result.failure is None
    assert result.ids == ["1"]
    assert len(sandbox.requests) == 2
    assert any("as partial: 1." in text for text in caplog.messages) is is_partial


def test_repeated_empty_page(serve: Serve) -> None:
    """An empty page that comes only once more, from a cache, does not end the list."""
    empty = json.dumps({"result": [], "next_cursor": "b"})
    last = json.dumps({"result": [{"id": "2"}], "next_cursor": None})
    script = [
        faults.body(json.dumps({"result": [{"id": "1"}], "next_cursor": "a"})),
        faults.body(empty, times=2),
        faults.body(last, times=None),
    ]
    result = read(serve(account(faults=script)))

    assert result.failure is None
    assert result.ids == ["1", "2"]


def test_expired_cursor(serve: Serve) -> None:
    """After a rejected cursor, its account starts again once; the second time, it fails."""
    passing = read(serve(account(count=25, faults=[faults.stale_cursor(after=2)])))
    assert passing.failure is None
    assert len(passing.ids) == len(set(passing.ids)) == 25

    sandbox = serve(account(count=25, faults=[always(faults.stale_cursor)]))
    staying = read(sandbox)
    assert "rejected, also after a restart from the first page" in str(staying.failure)
    assert "next sync" not in str(staying.failure)
    assert len(sandbox.requests) == 4


# --- failures by cause ---


def failing_accounts() -> list[Any]:
    """Return one good account and 60 failing ones, half of them with the same cause."""
    statuses = [*range(406, 408), *range(410, 422), *range(430, 441)]
    return [
        numbered_account(0),
        *(
            numbered_account(number, faults=[always(faults.vendor_refused, 405)])
            for number in range(1, 31)
        ),
        *(
            numbered_account(30 + number, faults=[always(faults.vendor_error, status, str(status))])
            for number, status in enumerate(statuses, start=1)
        ),
        *(numbered_account(70 + n, faults=[always(faults.scopes_missing)]) for n in range(3)),
        *(numbered_account(80 + n, faults=[always(faults.truto_error, 418)]) for n in range(2)),
    ]


def test_failures_by_cause(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Each cause has one message with counts and three ids, and the log lists each account."""
    accounts = failing_accounts()
    result = read(serve(*accounts), additional_accounts=ALL)

    *reported, summary = result.errors
    assert len(reported) < 20
    assert all(len(error["message"]) <= 8_000 for error in result.errors)
    first = next(e["message"] for e in reported if "does not allow this request" in e["message"])
    assert first.startswith("Reading the segments of integrated accounts failed: the vendor does")
    assert "Affected: 30 integrated accounts (klaviyo: 30), such as " in first
    assert " and 27 more. Reported: " in first
    assert first.endswith("Send this message to Truto's support.")
    assert "60 of 61 integrated accounts could not be read: " in summary["message"]
    for each in accounts[1:]:
        assert any(each.id in text and " failed: " in text for text in caplog.messages)
    assert len(result.records) == 3


def test_check_by_cause(serve: Serve) -> None:
    """A check of many bad accounts has few lines, and reports how many accounts it asked."""
    sandbox = serve(*failing_accounts())
    numbers = [*range(1, 31), 71]
    status, message = check(sandbox, additional_accounts=listed(*numbers))

    assert status is Status.FAILED
    assert str(message).startswith(
        "Asked 32 of 32 integrated accounts for segments: 31 of these cannot be read."
    )
    assert len(str(message).splitlines()) == 3
    assert len(str(message)) < 8_000


def test_check_asks_a_sample(serve: Serve) -> None:
    """Of the accounts that the list does not mark as active, the check asks 20."""
    bad = [numbered_account(n, status="needs_reauth", count=1) for n in range(1, 60)]
    sandbox = serve(numbered_account(0), *bad)
    status, message = check(sandbox, additional_accounts=ALL)

    assert status is Status.FAILED
    assert str(message).startswith("Asked 21 of 60 integrated accounts for segments: 20")
    assert len([r for r in sandbox.requests if r.kind == "segments"]) == 21


@pytest.mark.parametrize("fault", [faults.hang, faults.drip])
def test_check_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Fault]
) -> None:
    """A check ends in time, with a status, whatever the server does."""
    monkeypatch.setattr(check_module, "DEADLINE", 0.5)
    monkeypatch.setattr(transport, "TIMEOUT", (1.0, 0.6))
    status, message = check(serve(numbered_account(0, faults=[always(fault)]), numbered_account(1)))

    assert status is Status.FAILED
    assert "the request timed out (no answer within 0 s)" in str(message)


def test_check_without_any_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing has ever responded, the advice of a check is about the network."""
    monkeypatch.setattr(check_module, "DEADLINE", 0.5)
    _, message = check(serve(account(faults=[always(faults.hang)])))

    assert "the request timed out (no answer within 0 s)" in str(message)
    assert "Test the connection again in some minutes. If it persists, a firewall or proxy may" in (
        str(message)
    )


@pytest.mark.parametrize("fields", [{}, {"additional_accounts": ALL}], ids=["one", "all"])
def test_read_without_any_answer(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
) -> None:
    """A sync that gets no response says so in its progress lines and its message."""
    monkeypatch.setattr(transport, "TIMEOUT", (1.0, 0.3))
    caplog.set_level(logging.INFO)
    result = read(serve(account(), faults=[always(faults.hang)]), **fields)

    assert "The sync waits for the first response from Truto." in caplog.text
    assert "If it persists, a firewall or proxy may drop the connection: whoever" in str(
        result.failure
    )


def test_check_with_trutos_limit_only(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If only Truto's own limit keeps a check from an answer, it succeeds: the token is good."""
    status, message = check(serve(account(faults=[always(faults.truto_rate_limited, 60)])))

    assert (status, message) == (Status.SUCCEEDED, None)
    assert "the API token is good. Reading the segments of" in caplog.text


# --- the network and this machine ---


def settings_for(url: str, **fields: Any) -> dict[str, Any]:
    return {"token": "t0ken-of-a-test", "integrated_account_id": id_of(0), "api_url": url, **fields}


def check_url(url: str, **fields: Any) -> tuple[Status, str | None]:
    source = SourceTrutoSegments(FakeClock())
    found = source.check(logging.getLogger("airbyte.test"), settings_for(url, **fields))
    return found.status, found.message


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove all proxies and certificates from the environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_unknown_host() -> None:
    """A host name that cannot be resolved is reported with advice to check the name service."""
    status, message = check_url("https://truto.invalid")
    assert status is Status.FAILED
    assert "the name of the host could not be resolved (truto.invalid: " in str(message)
    assert "Check the name service (DNS)" in str(message)


@pytest.mark.parametrize(
    ("url", "words", "kind"),
    [
        ("https://truto.invalid", "the name of the host could not be resolved", "transient_error"),
        ("https://127.0.0.1:9", "belongs to a private network", "config_error"),
    ],
)
def test_cloud_filter(
    environment: pytest.MonkeyPatch, tmp_path: Path, url: str, words: str, kind: str
) -> None:
    """Under Airbyte Cloud's filter, DNS failures are temporary, and private addresses are not."""
    environment.setenv("DEPLOYMENT_MODE", "CLOUD")
    settings = write(tmp_path / "config.json", settings_for(url))
    (status,) = run("check", "--config", settings).of_type("CONNECTION_STATUS")
    assert status["status"] == "FAILED"
    assert words in status["message"]
    if kind == "config_error":
        read_ = run(
            "read", "--config", settings, "--catalog", write(tmp_path / "c.json", catalog())
        )
        assert read_.errors[-1]["failure_type"] == kind
        assert words in read_.errors[-1]["message"]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("no certificate", "the file has no valid certificates in PEM format"),
        ("-----BEGIN CERTIFICATE-----", "the file has no valid certificates in PEM format"),
        ([], "the folder has no certificate under its hash"),
        (["company.pem", "5ed36f99"], "the folder has no certificate under its hash"),
    ],
    ids=["missing", "text", "cut", "empty folder", "folder"],
)
def test_certificates(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str, content: Any, reason: str
) -> None:
    """If certificates cannot be loaded, a config error has the variable, the path and why."""
    path = tmp_path / "ca.pem"
    if isinstance(content, list):
        path.mkdir()
        for each in content:
            (path / each).touch()
    elif content is not None:
        path.write_text(content)
    environment.setenv(name, str(path))
    status, message = check_url("https://truto.invalid")

    assert status is Status.FAILED
    expected = (
        f"The certificates of this machine, set by {name}, cannot be loaded: {path}: {reason}"
    )
    assert str(message).startswith(expected)


def test_folder_of_certificates(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder is used if it has a certificate under its hash."""
    (tmp_path / "5ed36f99.0").touch()
    environment.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))

    assert "the name of the host could not be resolved" in str(check_url("https://truto.invalid"))


@pytest.mark.parametrize("value", ["http://[", "ftp://proxy:1", "http://", "://x"])
def test_proxy_address(environment: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    """If a proxy's address cannot be parsed, a config error contains the variable that sets it."""
    environment.setenv("HTTPS_PROXY", value)
    status, message = check_url("https://truto.invalid")
    expected = "The proxy of this machine, set by HTTPS_PROXY, has no valid address."

    assert status is Status.FAILED
    assert str(message).startswith(expected)
    if value == "://x":
        settings = write(tmp_path / "config.json", settings_for("https://truto.invalid"))
        configured = write(tmp_path / "catalog.json", catalog())
        (error,) = command("read", "--config", settings, "--catalog", configured).errors
        assert error["message"].startswith(expected)
        assert error["failure_type"] == "config_error"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["socks4a", "socks5", "socks5h"])
def test_socks_proxy(environment: pytest.MonkeyPatch, name: str, scheme: str) -> None:
    """A SOCKS proxy is a config error, unless another proxy takes precedence over it."""
    environment.setenv(name, f"{scheme}://some-user:pw@127.0.0.1:9")
    expected = (
        f"The proxy of this machine, set by {name}, is a SOCKS proxy, but the connector supports"
    )
    status, message = check_url("https://truto.invalid")

    assert status is Status.FAILED
    assert str(message).startswith(expected)
    environment.setenv("https_proxy", "127.0.0.1:9")
    assert "through the proxy 127.0.0.1:9" in str(check_url("https://truto.invalid"))


@pytest.mark.parametrize(
    ("address", "what", "advice"),
    [
        (
            "nohost.invalid:3128",
            "the name of the proxy of this machine could not be resolved",
            "(HTTPS_PROXY); if they are correct, check its name service (DNS).",
        ),
        (
            "127.0.0.1:9",
            "the proxy of this machine could not be reached, or refused the connection",
            "(HTTPS_PROXY), and that the proxy allows truto.invalid.",
        ),
    ],
)
def test_proxy_out_of_reach(
    environment: pytest.MonkeyPatch, address: str, what: str, advice: str
) -> None:
    """The message has the proxy's address, without user and password, and Truto's host."""
    environment.setenv("HTTPS_PROXY", f"http://some-user:pw@{address}")  # ignore-https-check
    _, message = check_url("https://truto.invalid")

    assert f"{what} (truto.invalid through the proxy {address}: " in str(message)
    assert str(message).endswith(advice)
    assert "pw" not in str(message)


@pytest.mark.parametrize(
    ("answer", "words", "kind"),
    [
        (
            "407 Proxy Authentication Required",
            "the proxy of this machine requires a login, or rejected the one that is set",
            "config_error",
        ),
        (
            "403 Forbidden",
            "the proxy of this machine could not be reached, or refused",
            "transient_error",
        ),
    ],
)
def test_proxy_that_refuses(
    environment: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    answer: str,
    words: str,
    kind: str,
) -> None:
    """If a proxy refuses, the message reports it, and its user and password appear nowhere."""
    settings = write(tmp_path / "config.json", settings_for("https://truto.invalid"))
    configured = write(tmp_path / "catalog.json", catalog())
    with raw_server(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        address = proxy.removeprefix("http://")  # ignore-https-check
        environment.setenv("https_proxy", f"some-user:pass%2Dword@{address}")
        caplog.set_level(logging.DEBUG)
        _, message = check_url("https://truto.invalid")
        result = command("read", "--config", settings, "--catalog", configured)

    assert words in str(message)
    assert f"through the proxy {address}: Tunnel connection failed: {answer}" in str(message)
    assert "(https_proxy)" in str(message)
    assert result.errors[-1]["failure_type"] == kind
    assert words in result.errors[-1]["message"]
    assert bool(result.waits) is (kind == "transient_error")
    for secret in ("some-user", "pass%2Dword", "pass-word"):
        assert secret not in f"{message}{caplog.text}"


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("jane:2024#Summer@proxy.invalid:3128", "has no valid address. In its user and password"),
        ("jane:2024/Summer@proxy.invalid:3128", "has no valid address. In its user and password"),
        ("jane:Summer?2024@proxy.invalid:3128", "has no valid address. In its user and password"),
        ("jane:Summer%E2%82%AC@proxy.invalid", "has a user or password with characters that HTTP"),
        ("jane:Summer@proxy..invalid:3128", "has no valid address. Set the variable"),
        (f"jane:Summer@{'x' * 64}.invalid", "has no valid address. Set the variable"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "http://"])  # ignore-https-check
def test_proxy_with_a_mistake(
    environment: pytest.MonkeyPatch, scheme: str, proxy: str, problem: str
) -> None:
    """A mistake in a proxy's address or login is a sentence, and no part of the login is shown."""
    environment.setenv("HTTPS_PROXY", f"{scheme}{proxy}")
    status, message = check_url("https://truto.invalid")

    assert status is Status.FAILED
    assert str(message).startswith("The proxy of this machine, set by HTTPS_PROXY, ")
    assert problem in str(message)
    assert not any(part in str(message) for part in ("jane", "Summer", "2024"))


@pytest.mark.parametrize("more", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["exact", "more"])
def test_proxy_with_tls(environment: pytest.MonkeyPatch, tmp_path: Path, more: bytes) -> None:
    """Through an HTTPS proxy, pages arrive, and what follows the end of one is no response."""
    pages = iter([b'{"result": [{"id": "1"}], "next_cursor": "x"}', b'{"result": [{"id": "2"}]}'])
    connections: list[socket.socket] = []

    def api(connection: socket.socket) -> None:
        connections.append(connection)
        while connection.recv(65_536):
            page = next(pages)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page)
            connection.sendall(head + page + more)

    def proxy(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        host, _, port = target.partition(":")
        with socket.create_connection((host, int(port))) as onward:
            threading.Thread(target=forward, args=(connection, onward), daemon=True).start()
            forward(onward, connection)

    settings = write(tmp_path / "config.json", settings_for("https://truto.invalid"))
    configured = write(tmp_path / "catalog.json", catalog())
    with tls_server(api) as target, tls_server(proxy) as address:
        environment.setenv("HTTPS_PROXY", f"https://{address}")
        environment.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
        result = command("read", "--config", settings, "--catalog", configured)

    assert result.failure is None
    assert result.ids == ["1", "2"]
    assert len(connections) == (2 if more else 1)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_loopback_is_not_proxied(serve: Serve, environment: pytest.MonkeyPatch, name: str) -> None:
    """Requests to this machine itself use no proxy, whatever proxies are set."""
    environment.setenv(name, "http://127.0.0.1:9")  # ignore-https-check
    result = read(serve(account(count=25)))
    assert result.failure is None
    assert len(result.ids) == 25


# --- files, logs and threads ---


def test_files_with_byte_order_marks(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are UTF-8 whatever the locale, and a byte order mark is skipped in all three."""
    monkeypatch.setenv("PYTHONUTF8", "0")
    pairs = [{"name": "suche", "value": "größer"}]
    contents = {
        "config": config(serve(account(count=3)), remote_query=pairs),
        "catalog": catalog(),
        "state": [],
    }
    arguments = []
    for name, content in contents.items():
        path = tmp_path / f"{name}.json"
        path.write_bytes(f"\ufeff{json.dumps(content, ensure_ascii=False)}".encode())
        arguments += [f"--{name}", str(path)]

    result = run("read", *arguments)
    assert result.exit_code == 0
    assert len(result.records) == 3


def states_in(form: str, states: list[dict[str, Any]]) -> str:
    """Return a state as some tool leaves it."""
    (only,) = states
    return {
        "list": json.dumps(states),
        "one": json.dumps(only),
        "without type": json.dumps([{k: v for k, v in only.items() if k != "type"}]),
        "message": json.dumps({"type": "STATE", "state": only}),
        "messages": json.dumps([{"type": "STATE", "state": only}]),
    }[form]


@pytest.mark.parametrize("form", ["list", "one", "without type", "message", "messages"])
def test_forms_of_state(serve: Serve, tmp_path: Path, form: str) -> None:
    """A state can be used in each form in which tools leave it."""
    sandbox = serve(account(count=5))
    state = read(sandbox, sync_mode="incremental").last_state
    path = tmp_path / "state.json"
    path.write_text(states_in(form, state))
    settings = write(tmp_path / "config.json", config(sandbox))
    configured = write(tmp_path / "catalog.json", catalog("incremental"))

    result = command("read", "--config", settings, "--catalog", configured, "--state", str(path))
    assert result.failure is None
    assert result.records == []


@pytest.mark.parametrize("how", ["--debug", "LOG_LEVEL"])
def test_debug_log(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """With debug logs, every line is a message, and none contains a value of remote_query."""
    if how == "LOG_LEVEL":
        monkeypatch.setenv("LOG_LEVEL", "debug")
    secret = "customers-own-value"
    sandbox = serve(account(count=25))
    settings = config(sandbox, remote_query=[{"name": "q", "value": secret}])
    paths = (write(tmp_path / "config.json", settings), write(tmp_path / "c.json", catalog()))
    flags = ["--debug"] if how == "--debug" else []

    result = run("read", "--config", paths[0], "--catalog", paths[1], *flags)
    assert len(result.records) == 25
    # `run` parses each line as JSON. The CDK's debug lines have their own type.
    assert {message["type"] for message in result.messages} <= TYPES
    debug = [m for m in result.messages if m["type"] == "DEBUG" and "GET unified" in str(m)]
    assert bool(debug) is (how == "--debug")
    assert secret not in json.dumps(result.messages)
    assert sandbox.environment.token not in json.dumps(result.messages)
