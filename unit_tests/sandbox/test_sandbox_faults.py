from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, get_args

import pytest
import requests

from sandbox import Account, Fault, faults
from sandbox.limits import RetryAfter

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Client, Serve


def faulty(*script: Fault, **settings: Any) -> Account:
    return Account("a", "klaviyo", [{"id": "1"}], faults=list(script), **settings)


def statuses(client: Client, count: int) -> list[int]:
    return [client.segments().status_code for _ in range(count)]


# --- which requests a fault is for ----------------------------------------------------------------


def test_given_a_fault_then_it_happens_once(serve: Serve) -> None:
    assert statuses(serve(faulty(faults.truto_failed())), 3) == [500, 200, 200]


def test_several_faults(serve: Serve) -> None:
    """Several faults: they happen one after the other."""
    script = [faults.truto_failed(times=2), faults.bad_gateway(), faults.gateway_timeout(after=1)]
    assert statuses(serve(faulty(*script)), 6) == [500, 500, 502, 200, 504, 200]


# --- what is sent ------------------------------------------------------------------------------


def test_given_an_error_of_trutos_then_its_envelope_is_complete(serve: Serve) -> None:
    insight = {"conditionally_required_query_parameters": {"description": "d", "value": ["x"]}}
    fault = faults.truto_error(
        422, "No", insight=insight, details={"field": "x"}, headers={"X-Request-Id": "r1"}
    )
    response = serve(faulty(fault)).segments()
    assert response.status_code == 422
    assert response.headers["X-Request-Id"] == "r1"
    assert response.json() == {
        "statusCode": 422,
        "error": response.json()["error"],
        "message": "No",
        "truto_error_insight": insight,
        "details": {"field": "x"},
    }


@pytest.mark.parametrize("raw", [{"errors": [1]}, "<html>", None, [], "é\ud800"])
def test_error_of_vendors(serve: Serve, raw: Any) -> None:
    """An error of the vendors: its body is passed on."""
    response = serve(faulty(faults.vendor_error(409, raw_response=raw))).segments()
    assert response.status_code == 409
    assert response.json() == {
        "statusCode": 409,
        "error": "Conflict",
        "message": "",
        "truto_is_remote_error": True,
        "raw_response": raw,
    }


@pytest.mark.parametrize(
    ("fault", "status", "is_vendors"),
    [
        (faults.bad_request, 400, False),
        (faults.missing_parameters, 400, False),
        (faults.resource_not_supported, 400, False),
        (faults.token_refused, 401, False),
        (faults.token_forbidden, 403, False),
        (faults.account_not_found, 404, False),
        (faults.truto_rate_limited, 429, False),
        (faults.truto_failed, 500, False),
        (faults.bad_gateway, 502, False),
        (faults.account_blocked, 503, False),
        (faults.gateway_timeout, 504, False),
        (faults.credentials_refused, 401, True),
        (faults.scopes_missing, 403, True),
        (faults.vendor_not_found, 404, True),
        (faults.vendor_refused, 422, True),
        (faults.vendor_rate_limited, 429, True),
        (faults.vendor_failed, 500, True),
        (faults.vendor_unavailable, 503, True),
    ],
)
def test_row_of_error_table(serve: Serve, fault: Any, status: int, is_vendors: bool) -> None:
    """A row of the error table: its fault has that status and origin."""
    response = serve(faulty(fault())).segments()
    assert response.status_code == response.json()["statusCode"] == status
    assert response.json().get("truto_is_remote_error", False) is is_vendors
    assert ("raw_response" in response.json()) is is_vendors


def test_credentials_refused(serve: Serve) -> None:
    """Credentials are refused: the account stays so."""
    client = serve(faulty(faults.credentials_refused()))
    assert statuses(client, 3) == [401, 401, 401]
    assert client.get("/integrated-account/a").json()["status"] == "needs_reauth"


@pytest.mark.parametrize("fault", [faults.truto_rate_limited, faults.vendor_rate_limited])
@pytest.mark.parametrize("form", get_args(RetryAfter))
def test_given_a_429_then_it_has_the_time_to_wait_in_its_form(
    serve: Serve, fault: Any, form: str
) -> None:
    response = serve(faulty(fault(7, form))).segments()
    retry_after = response.headers.get("Retry-After")
    assert response.status_code == 429
    if form == "seconds":
        assert retry_after == "7"
    elif form == "date":
        wait = parsedate_to_datetime(retry_after or "").timestamp() - time.time()
        assert 4 < wait <= 8
    else:
        assert retry_after is None
    reset = response.headers.get("ratelimit-reset")
    if form.startswith("ratelimit-reset-epoch"):
        milliseconds = int(reset or "") * (1 if form.endswith("-ms") else 1_000)
        assert 4 < milliseconds / 1_000 - time.time() <= 8
    else:
        assert reset == ("7" if form == "ratelimit-reset" else None)


# --- how it is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faults.reset, lambda: faults.reset(9), lambda: faults.cut(9)])
def test_broken_connection(serve: Serve, fault: Any) -> None:
    """A broken connection: a client of HTTP sees it."""
    client = serve(faulty(fault()))
    with pytest.raises(requests.RequestException):
        client.segments()
    assert client.segments().status_code == 200
