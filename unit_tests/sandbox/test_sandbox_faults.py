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


# --- which requests a fault affects --------------------------------------------------------------


def test_single_fault(serve: Serve) -> None:
    """By default, a fault affects one request."""
    assert statuses(serve(faulty(faults.truto_failed())), 3) == [500, 200, 200]


def test_several_faults(serve: Serve) -> None:
    """Several faults happen one after the other."""
    script = [faults.truto_failed(times=2), faults.bad_gateway(), faults.gateway_timeout(after=1)]
    assert statuses(serve(faulty(*script)), 6) == [500, 500, 502, 200, 504, 200]


# --- what is sent ------------------------------------------------------------------------------


def test_truto_error(serve: Serve) -> None:
    """An error of Truto has the complete envelope, and the given headers."""
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
def test_vendor_error(serve: Serve, raw: Any) -> None:
    """Truto passes on the body of a vendor's error."""
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
    """The fault for a row of the error table has that row's status and origin."""
    response = serve(faulty(fault())).segments()
    assert response.status_code == response.json()["statusCode"] == status
    assert response.json().get("truto_is_remote_error", False) is is_vendors
    assert ("raw_response" in response.json()) is is_vendors


def test_credentials_refused(serve: Serve) -> None:
    """Once its credentials have been refused, an account keeps failing and needs reauth."""
    client = serve(faulty(faults.credentials_refused()))
    assert statuses(client, 3) == [401, 401, 401]
    assert client.get("/integrated-account/a").json()["status"] == "needs_reauth"


@pytest.mark.parametrize("fault", [faults.truto_rate_limited, faults.vendor_rate_limited])
@pytest.mark.parametrize("form", get_args(RetryAfter))
def test_forms_of_retry_after(serve: Serve, fault: Any, form: str) -> None:
    """A 429 states the time to wait in the given form."""
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
    """The client notices a broken connection, and its next request succeeds."""
    client = serve(faulty(fault()))
    with pytest.raises(requests.RequestException):
        client.segments()
    assert client.segments().status_code == 200
