"""Every failure of the API, with the message that a user reads."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from airbyte_cdk.models import FailureType, Status

from integration_tests.support import ACCOUNT_ID, Serve, account, check, read
from sandbox import Environment, Fault, Sandbox, faults
from source_truto_segments.truto import transport

CONFIG, TRANSIENT = FailureType.config_error, FailureType.transient_error
LOST = "the connection could not be established or was lost"


@dataclass
class Row:
    """A failure, with what its message should contain and how many requests it should take."""

    fault: Fault
    failure_type: FailureType
    requests: int
    expected: tuple[str, ...]

    def __post_init__(self) -> None:
        self.fault.times = None


def refused(
    fault: Fault, *expected: str, requests: int = 1, failure_type: FailureType = CONFIG
) -> Row:
    return Row(fault, failure_type, requests, expected)


def retried(fault: Fault, *expected: str) -> Row:
    return Row(fault, TRANSIENT, RETRIED, expected)


READING = f"Reading the segments of integrated account {ACCOUNT_ID} failed: "
# This stands for five minutes of retries, with varying waits of 1 to 60 s.
RETRIED = -1

ROWS = {
    "400 truto": refused(
        faults.bad_request(),
        "Truto rejected the request",
        '(HTTP 400; Truto reported: "The request could',
        "Send this message to Truto's support.",
    ),
    "400 not supported": refused(
        faults.resource_not_supported(),
        "Truto does not support this resource for this integration",
        "Remove this account from the source",
    ),
    "400 vendor": refused(
        faults.vendor_error(400),
        "the vendor rejected the request",
        'the vendor reported: "The vendor could not do this"',
    ),
    "400 stale cursor": refused(
        faults.stale_cursor(),
        "cursor of the next page was rejected, also",
        "Invalid cursor",
        "rejects its own cursor",
        requests=4,
        failure_type=FailureType.system_error,
    ),
    "401 truto": refused(faults.token_refused(), "Truto rejected the API token", "API token field"),
    "401 vendor": refused(
        faults.credentials_refused(),
        "the vendor rejected the credentials",
        "owner must reconnect it in Truto",
    ),
    "403 truto": refused(
        faults.token_forbidden(), "Truto denied access with this API token", "Forbidden resource"
    ),
    "403 vendor": refused(
        faults.scopes_missing("segments:read", "lists:read"),
        "missing scopes: segments:read, lists:read",
        "reconnect it in Truto and grant",
    ),
    "404 truto": refused(
        faults.account_not_found(), "Truto has no such account", "same Truto environment"
    ),
    # The second request asks for the integration: an ActiveCampaign account would simply be empty.
    "404 vendor": refused(
        faults.vendor_not_found(),
        "the vendor did not find the requested resource",
        'reported: "Not found"',
        requests=2,
    ),
    "405 vendor": refused(faults.vendor_refused(405), "the vendor does not allow this request"),
    "409 vendor": refused(faults.vendor_refused(409), "the vendor reported a conflict"),
    "422 vendor": refused(
        faults.vendor_refused(422),
        "the vendor could not process the request",
        "The request cannot be processed",
    ),
    "418 undocumented": refused(faults.truto_error(418), "Truto rejected the request unexpectedly"),
    "500 truto": retried(faults.truto_failed(), "Truto had an internal error", "times in "),
    "500 vendor": retried(faults.vendor_failed(), "the vendor had an internal error", "times in "),
    "502 truto": retried(
        faults.bad_gateway(), "Truto received an invalid response from the vendor (bad gateway)"
    ),
    "502 vendor": retried(faults.vendor_failed(502), "the vendor returned a bad gateway error"),
    "503 truto": refused(
        faults.account_blocked(),
        "Truto has blocked this account",
        "Contact Truto's support with the account's ID",
        requests=4,
    ),
    "503 vendor": retried(faults.vendor_unavailable(), "the vendor is unavailable"),
    "504 truto": retried(faults.gateway_timeout(), "the vendor did not respond to Truto in time"),
    "504 vendor": retried(faults.vendor_failed(504), "the vendor did not respond in time"),
    "599 undocumented": retried(
        faults.truto_error(599), "Truto returned an undocumented server error"
    ),
    "302 redirect": refused(
        faults.redirect("http://127.0.0.1:9/"),
        "redirects are not followed, to protect the API token",
        "api_url",
    ),
    "200 html": retried(
        faults.body("<html><body>Bad   gateway</body></html>"),
        "a gateway, firewall or proxy answered in Truto's place",
        "is not JSON: <html><body>Bad gateway</body></html>",
    ),
    "200 cut json": retried(faults.body('{"result": [{"id": "1"'), "is not JSON"),
    "200 empty": retried(faults.body(""), "the response is empty"),
    "204": retried(faults.body("", 204), "the response is empty"),
    "200 no result": retried(faults.body('{"next_cursor": null}'), "the response has no result"),
    "200 text result": retried(faults.body('{"result": "none"}'), "neither a list nor an object"),
    "200 list": retried(faults.body("[]"), "is not a JSON object"),
    "200 comma": retried(faults.body('{"result": [],}'), "is not JSON"),
    "200 malformed cursor": retried(
        faults.body('{"result": [], "next_cursor": {"a": 1}}'), "next_cursor is not a string"
    ),
    "reset": retried(faults.reset(), LOST),
    "cut": retried(faults.cut(50), LOST),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("trutos_own")
def test_failure(serve: Serve, name: str) -> None:
    """One error reports each failure, with its message and type."""
    row = ROWS[name]
    row.fault.kind = "segments"
    sandbox = serve(account(count=25, faults=[row.fault]))

    result = read(sandbox)

    (error,) = result.errors
    assert error["message"] == str(result.failure)
    assert error["message"].startswith(READING)
    for words in row.expected:
        assert words in error["message"]
    assert error["failure_type"] == row.failure_type.value
    assert result.failure is not None
    assert result.failure.failure_type is row.failure_type
    assert "Traceback" not in error["message"]
    expected = range(9, 15) if row.requests == RETRIED else [row.requests]
    assert len(sandbox.requests) in expected
    assert result.statuses[-1] == "INCOMPLETE"


@pytest.mark.parametrize(
    "name", ["400 truto", "401 vendor", "403 vendor", "404 truto", "503 truto"]
)
def test_failure_in_check(serve: Serve, name: str) -> None:
    """The status of the check reports the same failure."""
    row = ROWS[name]
    status, message = check(serve(account(faults=[row.fault])))

    assert status is Status.FAILED
    for words in row.expected:
        assert words in str(message)


@pytest.mark.parametrize("name", ["500 vendor", "200 html", "reset"])
def test_temporary_failure(serve: Serve, name: str) -> None:
    """If a failure is temporary, nothing is lost."""
    fault = ROWS[name].fault
    passing = Fault(response=fault.response, delivery=fault.delivery, times=2, after=1)
    result = read(serve(account(count=25, faults=[passing])))

    assert result.failure is None
    assert len(result.ids) == len(set(result.ids)) == 25


@pytest.mark.parametrize("after_bytes", [1, 100, 1500, 5000])
@pytest.mark.parametrize("break_off", [faults.reset, faults.cut])
def test_connection_breaks_in_page(
    serve: Serve, break_off: Callable[..., Fault], after_bytes: int
) -> None:
    """If the connection breaks within a page, nothing is lost."""
    script = [break_off(after_bytes, after=page) for page in (0, 1, 3)]
    result = read(serve(account(count=35, faults=script)))

    assert result.failure is None
    assert len(result.ids) == len(set(result.ids)) == 35


def test_no_response(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a response times out and is retried."""
    monkeypatch.setattr(transport, "TIMEOUT", (1.0, 0.2))
    sandbox = serve(account(count=25, faults=[faults.hang(times=2)]))

    result = read(sandbox)

    assert len(result.records) == 25
    assert len(sandbox.requests) == 5


def test_response_never_comes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no response ever comes, the sync reports a timeout."""
    monkeypatch.setattr(transport, "TIMEOUT", (1.0, 0.1))
    result = read(serve(account(faults=[faults.hang(times=None)])))

    assert "the request timed out" in str(result.failure)
    assert "times in " in str(result.failure)


def test_response_byte_by_byte(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that comes byte by byte is abandoned and requested again."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 1.5)
    sandbox = serve(account(count=25, faults=[faults.drip(0.05)]))

    result = read(sandbox)

    assert len(result.records) == 25
    assert [request.status for request in sandbox.requests] == [200] * 4


def test_responses_byte_by_byte_only(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all responses come byte by byte, the sync reports a timeout."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.1)

    result = read(serve(account(faults=[faults.drip(0.05, times=None)])))

    assert "the request timed out" in str(result.failure)
    assert "the response was not complete after" in str(result.failure)


def test_nobody_listens() -> None:
    """If nobody listens, the message contains the address."""
    sandbox = Sandbox(Environment())
    sandbox.start()
    sandbox.stop()

    result = read(sandbox)

    host = sandbox.url.removeprefix("http://")
    assert f"was lost ({host}: " in str(result.failure)
    assert "refused" in str(result.failure)


def test_waits_between_attempts(serve: Serve) -> None:
    """The waits between attempts grow, and end after five minutes."""
    result = read(serve(account(faults=[faults.vendor_failed(times=None)])))

    assert result.waits[:6] == sorted(result.waits[:6])
    assert max(result.waits) <= 60
    # The next wait would have ended after the five minutes.
    assert 240 <= sum(result.waits) <= 300


def test_server_says_when_to_retry(serve: Serve) -> None:
    """If the server says when to retry, the connector waits exactly that long."""
    fault = faults.vendor_error(503, headers={"Retry-After": "7"})
    result = read(serve(account(faults=[fault])))

    assert result.failure is None
    assert result.waits == [7.0]


def test_wait_of_hours(serve: Serve) -> None:
    """If the server asks for a wait of hours, the account fails at once."""
    fault = faults.vendor_error(503, headers={"Retry-After": "86400"}, times=None)
    sandbox = serve(account(faults=[fault]))

    result = read(sandbox)

    assert "the vendor is unavailable" in str(result.failure)
    assert result.waits == []
    assert len(sandbox.requests) == 1


def test_long_reason(serve: Serve) -> None:
    """A message contains an excerpt of a long reason, on one line."""
    reason = "<h1>\n" + "x" * 10_000
    result = read(serve(account(faults=[faults.vendor_error(400, raw_response=reason)])))

    assert "xxx…" in str(result.failure)
    assert len(str(result.failure)) < 800
    assert "\n" not in str(result.failure)


def test_informational_insight(serve: Serve) -> None:
    """If an insight only informs, the connector looks for no workspaces."""
    insight = {
        "conditionally_required_query_parameters": {
            "description": "may be needed",
            "value": ["workspace[id]"],
        }
    }
    sandbox = serve(account("brevo", faults=[faults.truto_error(400, "No", insight=insight)]))

    result = read(sandbox)

    assert "Truto rejected the request" in str(result.failure)
    assert {request.kind for request in sandbox.requests} == {"segments"}


def test_workspace_configured_and_still_required(serve: Serve) -> None:
    """If the vendor requires a workspace though one is configured, the message reports that."""
    fault = faults.missing_parameters("workspace[id]", times=None)
    sandbox = serve(account("beehiiv", workspaces={"a": []}, faults=[fault]))

    result = read(sandbox, workspace_id="a")

    assert "the vendor requires a workspace" in str(result.failure)
    assert [request.kind for request in sandbox.requests] == ["workspaces", "segments"]


def test_workspaces_cannot_be_listed(serve: Serve) -> None:
    """If the workspaces cannot be listed, the message reports that."""
    fault = faults.scopes_missing("publications:read", kind="workspaces", times=None)
    result = read(serve(account("beehiiv", faults=[fault])))

    assert f"Listing the workspaces of integrated account {ACCOUNT_ID} failed" in str(
        result.failure
    )
    assert "publications:read" in str(result.failure)


def test_token_in_response(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A token in a response is masked everywhere."""
    caplog.set_level("DEBUG")
    sandbox = serve()
    token = sandbox.environment.token
    sandbox.environment.accounts.append(
        account(faults=[faults.vendor_error(400, f"Bearer {token} was refused", times=None)])
    )

    result = read(sandbox, token=f" {token} ")

    assert "Bearer **** was refused" in str(result.failure)
    assert token not in str(result.messages)
    assert token not in caplog.text
