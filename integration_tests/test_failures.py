"""Every failure of the API, by the message that a user reads."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from airbyte_cdk.models import FailureType, Status

from integration_tests.support import ACCOUNT_ID, account, check, read
from sandbox import Environment, Fault, Sandbox, faults
from source_truto_segments.truto import transport

Serve = Callable[..., Sandbox]
CONFIG, TRANSIENT = FailureType.config_error, FailureType.transient_error
LOST = "the connection could not be established or was lost"


@dataclass
class Row:
    """A failure, and what is expected of the message and of the number of requests."""

    fault: Fault
    failure_type: FailureType
    requests: int
    expected: tuple[str, ...]


def always(make: Callable[..., Fault], *arguments: object) -> Fault:
    return make(*arguments, times=None)


READING = f"Reading the segments of integrated account {ACCOUNT_ID} failed: "
# For five minutes, with waits of 1 to 60 s that vary.
RETRIED = -1

ROWS = {
    "400 truto": Row(
        always(faults.bad_request),
        CONFIG,
        1,
        (
            "Truto rejected the request",
            '(HTTP 400; Truto reported: "The request could',
            "workspace_id",
        ),
    ),
    "400 not supported": Row(
        always(faults.resource_not_supported),
        CONFIG,
        1,
        (
            "Truto does not support this resource for this integration",
            "Remove this account from the source",
        ),
    ),
    "400 vendor": Row(
        always(faults.vendor_error, 400),
        CONFIG,
        1,
        ("the vendor rejected the request", 'the vendor reported: "The vendor could not do this"'),
    ),
    "400 stale cursor": Row(
        always(faults.stale_cursor),
        FailureType.system_error,
        4,
        ("cursor of the next page was rejected, again", "Invalid cursor", "rejects its own cursor"),
    ),
    "401 truto": Row(
        always(faults.token_refused),
        CONFIG,
        1,
        ("Truto rejected the API token", "API token field"),
    ),
    "401 vendor": Row(
        always(faults.credentials_refused),
        CONFIG,
        1,
        ("the vendor rejected the credentials", "owner must reconnect it in Truto"),
    ),
    "403 truto": Row(
        always(faults.token_forbidden),
        CONFIG,
        1,
        ("Truto denied access with this API token", "Forbidden resource"),
    ),
    "403 vendor": Row(
        always(faults.scopes_missing, "segments:read", "lists:read"),
        CONFIG,
        1,
        ("missing scopes: segments:read, lists:read", "reconnect it in Truto and grant"),
    ),
    "404 truto": Row(
        always(faults.account_not_found),
        CONFIG,
        1,
        ("Truto has no such account", "same Truto environment"),
    ),
    # The second request asks for the integration: an ActiveCampaign account would just be empty.
    "404 vendor": Row(
        always(faults.vendor_not_found),
        CONFIG,
        2,
        ("the vendor did not find the requested resource", 'reported: "Not found"'),
    ),
    "405 vendor": Row(
        always(faults.vendor_refused, 405), CONFIG, 1, ("the vendor does not allow this request",)
    ),
    "409 vendor": Row(
        always(faults.vendor_refused, 409), CONFIG, 1, ("the vendor reported a conflict",)
    ),
    "422 vendor": Row(
        always(faults.vendor_refused, 422),
        CONFIG,
        1,
        ("the vendor could not process the request", "The request cannot be processed"),
    ),
    "418 undocumented": Row(
        always(faults.truto_error, 418), CONFIG, 1, ("Truto rejected the request unexpectedly",)
    ),
    "500 truto": Row(
        always(faults.truto_failed),
        TRANSIENT,
        RETRIED,
        ("Truto had an internal error", "times in "),
    ),
    "500 vendor": Row(
        always(faults.vendor_failed),
        TRANSIENT,
        RETRIED,
        ("the vendor had an internal error", "times in "),
    ),
    "502 truto": Row(
        always(faults.bad_gateway),
        TRANSIENT,
        RETRIED,
        ("Truto received an invalid response from the vendor (bad gateway)",),
    ),
    "502 vendor": Row(
        always(faults.vendor_failed, 502),
        TRANSIENT,
        RETRIED,
        ("the vendor returned a bad gateway error",),
    ),
    "503 truto": Row(
        always(faults.account_blocked),
        CONFIG,
        4,
        ("Truto has blocked this account", "Contact Truto's support with the account's ID"),
    ),
    "503 vendor": Row(
        always(faults.vendor_unavailable), TRANSIENT, RETRIED, ("the vendor is unavailable",)
    ),
    "504 truto": Row(
        always(faults.gateway_timeout),
        TRANSIENT,
        RETRIED,
        ("the vendor did not respond to Truto in time",),
    ),
    "504 vendor": Row(
        always(faults.vendor_failed, 504),
        TRANSIENT,
        RETRIED,
        ("the vendor did not respond in time",),
    ),
    "599 undocumented": Row(
        always(faults.truto_error, 599),
        TRANSIENT,
        RETRIED,
        ("Truto returned an undocumented server error",),
    ),
    "302 redirect": Row(
        always(faults.redirect, "http://127.0.0.1:9/"),
        CONFIG,
        1,
        ("redirects are not followed, to protect the API token", "api_url"),
    ),
    "200 html": Row(
        always(faults.body, "<html><body>Bad   gateway</body></html>"),
        TRANSIENT,
        RETRIED,
        (
            "a gateway, firewall or proxy answered in Truto's place",
            "is not JSON: <html><body>Bad gateway</body></html>",
        ),
    ),
    "200 cut json": Row(
        always(faults.body, '{"result": [{"id": "1"'), TRANSIENT, RETRIED, ("is not JSON",)
    ),
    "200 empty": Row(always(faults.body, ""), TRANSIENT, RETRIED, ("the response is empty",)),
    "204": Row(always(faults.body, "", 204), TRANSIENT, RETRIED, ("the response is empty",)),
    "200 no result": Row(
        always(faults.body, '{"next_cursor": null}'),
        TRANSIENT,
        RETRIED,
        ("the response has no result",),
    ),
    "200 text result": Row(
        always(faults.body, '{"result": "none"}'),
        TRANSIENT,
        RETRIED,
        ("neither a list nor an object",),
    ),
    "200 list": Row(always(faults.body, "[]"), TRANSIENT, RETRIED, ("is not a JSON object",)),
    "200 comma": Row(always(faults.body, '{"result": [],}'), TRANSIENT, RETRIED, ("is not JSON",)),
    "200 malformed cursor": Row(
        always(faults.body, '{"result": [], "next_cursor": {"a": 1}}'),
        TRANSIENT,
        RETRIED,
        ("next_cursor is not a string",),
    ),
    "reset": Row(always(faults.reset), TRANSIENT, RETRIED, (LOST,)),
    "cut": Row(always(faults.cut, 50), TRANSIENT, RETRIED, (LOST,)),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("trutos_own")
def test_given_a_failure_when_read_then_one_error_reports_it(serve: Serve, name: str) -> None:
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
def test_given_a_failure_when_checked_then_the_status_reports_the_same(
    serve: Serve, name: str
) -> None:
    row = ROWS[name]
    status, message = check(serve(account(faults=[row.fault])))

    assert status is Status.FAILED
    for words in row.expected:
        assert words in str(message)


@pytest.mark.parametrize("name", ["500 vendor", "200 html", "reset"])
def test_given_a_failure_that_passes_when_read_then_nothing_is_lost(
    serve: Serve, name: str
) -> None:
    fault = ROWS[name].fault
    passing = Fault(response=fault.response, delivery=fault.delivery, times=2, after=1)
    result = read(serve(account(count=25, faults=[passing])))

    assert result.failure is None
    assert len(result.ids) == len(set(result.ids)) == 25


@pytest.mark.parametrize("after_bytes", [1, 100, 1500, 5000])
@pytest.mark.parametrize("break_off", [faults.reset, faults.cut])
def test_given_the_network_dies_in_a_page_when_read_then_nothing_is_lost(
    serve: Serve, break_off: Callable[..., Fault], after_bytes: int
) -> None:
    script = [break_off(after_bytes, after=page) for page in (0, 1, 3)]
    result = read(serve(account(count=35, faults=script)))

    assert result.failure is None
    assert len(result.ids) == len(set(result.ids)) == 35


def test_given_no_response_when_read_then_it_times_out_and_tries_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT", (1.0, 0.2))
    sandbox = serve(account(count=25, faults=[faults.hang(times=2)]))

    result = read(sandbox)

    assert len(result.records) == 25
    assert len(sandbox.requests) == 5


def test_given_never_a_response_when_read_then_a_timeout_is_reported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT", (1.0, 0.1))
    result = read(serve(account(faults=[faults.hang(times=None)])))

    assert "the request timed out" in str(result.failure)
    assert "times in " in str(result.failure)


def test_given_a_response_byte_by_byte_when_read_then_it_is_abandoned_and_requested_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 1.5)
    sandbox = serve(account(count=25, faults=[faults.drip(0.05)]))

    result = read(sandbox)

    assert len(result.records) == 25
    assert [request.status for request in sandbox.requests] == [200] * 4


def test_given_responses_byte_by_byte_only_when_read_then_a_timeout_is_reported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.1)

    result = read(serve(account(faults=[faults.drip(0.05, times=None)])))

    assert "the request timed out" in str(result.failure)
    assert "the response was not complete after" in str(result.failure)


def test_given_nobody_listens_when_read_then_the_address_is_named() -> None:
    sandbox = Sandbox(Environment())
    sandbox.start()
    sandbox.stop()

    result = read(sandbox)

    host = sandbox.url.removeprefix("http://")
    assert f"was lost ({host}: " in str(result.failure)
    assert "refused" in str(result.failure)


def test_given_waits_between_attempts_when_read_then_they_grow_and_end(serve: Serve) -> None:
    result = read(serve(account(faults=[faults.vendor_failed(times=None)])))

    assert result.waits[:6] == sorted(result.waits[:6])
    assert max(result.waits) <= 60
    # The next wait would have ended after five minutes.
    assert 240 <= sum(result.waits) <= 300


def test_given_a_server_that_says_when_to_retry_when_read_then_just_that_is_waited(
    serve: Serve,
) -> None:
    fault = faults.vendor_error(503, headers={"Retry-After": "7"})
    result = read(serve(account(faults=[fault])))

    assert result.failure is None
    assert result.waits == [7.0]


def test_given_a_wait_of_hours_when_read_then_the_account_fails_at_once(serve: Serve) -> None:
    fault = faults.vendor_error(503, headers={"Retry-After": "86400"}, times=None)
    sandbox = serve(account(faults=[fault]))

    result = read(sandbox)

    assert "the vendor is unavailable" in str(result.failure)
    assert result.waits == []
    assert len(sandbox.requests) == 1


def test_given_a_long_reason_when_read_then_an_excerpt_is_on_one_line(serve: Serve) -> None:
    reason = "<h1>\n" + "x" * 10_000
    result = read(serve(account(faults=[faults.vendor_error(400, raw_response=reason)])))

    assert "xxx…" in str(result.failure)
    assert len(str(result.failure)) < 800
    assert "\n" not in str(result.failure)


def test_given_an_informational_insight_when_read_then_no_workspace_is_looked_for(
    serve: Serve,
) -> None:
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


def test_given_a_workspace_is_configured_and_still_required_when_read_then_it_is_reported(
    serve: Serve,
) -> None:
    fault = faults.missing_parameters("workspace[id]", times=None)
    sandbox = serve(account("beehiiv", workspaces={"a": []}, faults=[fault]))

    result = read(sandbox, workspace_id="a")

    assert "the vendor requires a workspace" in str(result.failure)
    assert len(sandbox.requests) == 1


def test_given_the_workspaces_cannot_be_listed_when_read_then_that_is_reported(
    serve: Serve,
) -> None:
    fault = faults.scopes_missing("publications:read", kind="workspaces", times=None)
    result = read(serve(account("beehiiv", faults=[fault])))

    assert f"Listing the workspaces of integrated account {ACCOUNT_ID} failed" in str(
        result.failure
    )
    assert "publications:read" in str(result.failure)


def test_given_the_token_in_a_response_when_read_then_it_is_masked_everywhere(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
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
