from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

import pytest
import requests

from sandbox import DEFAULT_TOKEN, Account, Fault, Request, faults
from sandbox.limits import RetryAfter

if TYPE_CHECKING:
    from sandbox.responses import Response
    from unit_tests.sandbox.conftest import Client, Serve


def faulty(*script: Fault, **settings: Any) -> Account:
    return Account("a", "klaviyo", [{"id": "1"}], faults=list(script), **settings)


def statuses(client: Client, count: int) -> list[int]:
    return [client.segments().status_code for _ in range(count)]


# --- which requests a fault is for ----------------------------------------------------------------


def test_given_a_fault_then_it_happens_once(serve: Serve) -> None:
    assert statuses(serve(faulty(faults.truto_failed())), 3) == [500, 200, 200]


def test_given_times_then_it_happens_that_often(serve: Serve) -> None:
    assert statuses(serve(faulty(faults.truto_failed(times=2))), 4) == [500, 500, 200, 200]


def test_given_no_end_then_it_happens_always(serve: Serve) -> None:
    assert statuses(serve(faulty(faults.truto_failed(times=None))), 4) == [500] * 4


def test_given_after_then_that_many_pass_first(serve: Serve) -> None:
    assert statuses(serve(faulty(faults.truto_failed(after=2))), 4) == [200, 200, 500, 200]


def test_given_several_faults_then_they_happen_one_after_the_other(serve: Serve) -> None:
    script = [faults.truto_failed(times=2), faults.bad_gateway(), faults.gateway_timeout(after=1)]
    assert statuses(serve(faulty(*script)), 6) == [500, 500, 502, 200, 504, 200]


def test_given_a_kind_then_other_requests_pass(serve: Serve) -> None:
    client = serve(faulty(faults.truto_failed(kind="meta")))
    assert client.segments().status_code == 200
    assert client.meta().status_code == 500


def test_given_a_condition_then_other_requests_pass(serve: Serve) -> None:
    def is_small(request: Request) -> bool:
        return request.param("limit") == "1"

    client = serve(faulty(faults.truto_failed(when=is_small)))
    assert client.segments().status_code == 200
    assert client.segments(params={"limit": 1}).status_code == 500


def test_given_an_accounts_fault_then_other_accounts_are_not_concerned(serve: Serve) -> None:
    client = serve(faulty(faults.truto_failed()), Account("b", "klaviyo"))
    assert client.segments("b").status_code == 200
    assert client.segments("a").status_code == 500


def test_given_a_wrong_token_then_an_accounts_fault_is_not_used_up(serve: Serve) -> None:
    client = serve(faulty(faults.truto_failed()))
    url = "/integrated-account/a"
    assert client.get(url, token="wrong").status_code == 401
    assert client.get(url).status_code == 500


def test_given_an_environments_fault_then_any_request_can_meet_it(serve: Serve) -> None:
    client = serve(faults=[faults.truto_failed(times=3)])
    assert client.accounts().status_code == 500
    assert client.get("/other").status_code == 500
    assert client.get(client.ACCOUNTS, token="wrong").status_code == 500
    assert client.accounts().status_code == 200


def test_given_an_alteration_then_each_response_is_sent_as_it_makes_it(serve: Serve) -> None:
    client = serve(faulty())

    def alter(request: Request, response: Response) -> Response:
        return replace(response, status=418) if request.kind == "meta" else response

    client.sandbox.environment.alter = alter
    assert client.segments().status_code == 200
    assert client.meta().status_code == 418


def test_given_a_fault_is_added_while_it_runs_then_the_next_request_meets_it(serve: Serve) -> None:
    account = faulty()
    client = serve(account)
    assert client.segments().status_code == 200
    account.faults.append(faults.truto_failed())
    assert client.segments().status_code == 500


def test_given_many_threads_then_a_fault_is_used_up_exactly_as_often_as_it_may_be() -> None:
    fault = faults.truto_failed(times=100, after=50)
    request = Request("GET", "/", [], {}, 0.0, None, None, "other")
    taken: list[bool] = []

    def take() -> None:
        taken.extend([fault.take(request) for _ in range(100)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (800, 100)


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
def test_given_an_error_of_the_vendors_then_its_body_is_passed_on(serve: Serve, raw: Any) -> None:
    response = serve(faulty(faults.vendor_error(409, raw_response=raw))).segments()
    assert response.status_code == 409
    assert response.json() == {
        "statusCode": 409,
        "error": "Conflict",
        "message": "",
        "truto_is_remote_error": True,
        "raw_response": raw,
    }


def test_given_a_status_without_a_name_then_it_is_sent_anyway(serve: Serve) -> None:
    response = serve(faulty(faults.truto_error(599))).segments()
    assert (response.status_code, response.json()["error"]) == (599, "Error")


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
def test_given_a_row_of_the_error_table_then_its_fault_has_that_status_and_origin(
    serve: Serve,
    fault: Any,
    status: int,
    is_vendors: bool,
) -> None:
    response = serve(faulty(fault())).segments()
    assert response.status_code == response.json()["statusCode"] == status
    assert response.json().get("truto_is_remote_error", False) is is_vendors
    assert ("raw_response" in response.json()) is is_vendors


@pytest.mark.parametrize("status", [405, 409, 422])
def test_given_the_vendor_refuses_then_only_raw_response_holds_the_reason(
    serve: Serve, status: int
) -> None:
    response = serve(faulty(faults.vendor_refused(status))).segments()
    assert (response.status_code, response.json()["message"]) == (status, "")
    assert response.json()["raw_response"]


def test_given_scopes_are_missing_then_the_insight_names_them(serve: Serve) -> None:
    response = serve(faulty(faults.scopes_missing("segments:read", "tags:read"))).segments().json()
    insight = response["truto_error_insight"]["forbidden_error"]
    assert insight["value"] == {"missing_scopes": ["segments:read", "tags:read"]}


def test_given_parameters_are_missing_then_the_insight_names_them(serve: Serve) -> None:
    response = serve(faulty(faults.missing_parameters("x"))).segments().json()
    assert response["truto_error_insight"]["missing_required_query_parameters"]["value"] == ["x"]


def test_given_a_stale_cursor_then_only_a_request_with_a_cursor_meets_it(serve: Serve) -> None:
    account = Account("a", "klaviyo", [{"id": str(n)} for n in range(11)])
    account.faults.append(faults.stale_cursor())
    client = serve(account)
    cursor = client.segments().json()["next_cursor"]
    assert client.segments(params={"next_cursor": cursor}).status_code == 400
    assert client.segments(params={"next_cursor": cursor}).status_code == 200


def test_given_credentials_are_refused_then_the_account_stays_so(serve: Serve) -> None:
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


def test_given_several_429s_without_headers_then_they_come_in_a_row(serve: Serve) -> None:
    client = serve(faulty(faults.vendor_rate_limited(form="nothing", times=3)))
    assert statuses(client, 4) == [429, 429, 429, 200]


def test_given_no_model_then_truto_responds_404_to_meta_only(serve: Serve) -> None:
    client = serve(faulty(faults.truto_error(404, "Not found", kind="meta", times=None)))
    response = client.meta()
    assert (response.status_code, response.json()["message"]) == (404, "Not found")
    assert "truto_is_remote_error" not in response.json()
    assert client.segments().status_code == 200


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        ("<html>Bad Gateway</html>", "text/html"),
        (b'{"result": [', "application/json"),
        (b"\xff\xfe", "application/json"),
        ("", "application/json"),
        ('{"result": null}', "application/json"),
    ],
)
def test_given_any_body_then_it_is_sent_unchanged(
    serve: Serve, content: str | bytes, content_type: str
) -> None:
    fault = faults.body(content, status=502, content_type=content_type, headers={"X-A": "b"})
    response = serve(faulty(fault)).segments()
    assert response.status_code == 502
    assert response.content == (content if isinstance(content, bytes) else content.encode())
    assert response.headers["Content-Type"] == content_type
    assert response.headers["X-A"] == "b"


def test_given_a_redirect_then_it_names_its_target(serve: Serve) -> None:
    response = serve(faulty(faults.redirect("http://elsewhere.invalid/", 307))).segments()
    assert response.status_code == 307
    assert response.headers["Location"] == "http://elsewhere.invalid/"


# --- how it is sent -------------------------------------------------------------------------------


def exchange(client: Client) -> tuple[bytes, bool]:
    """What arrives before the connection ends, and whether it ended with a reset."""
    address = urlsplit(client.sandbox.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=5) as connection:
        connection.sendall(
            f"GET {client.SEGMENTS}?integrated_account_id=a HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {DEFAULT_TOKEN}\r\n\r\n".encode()
        )
        received = b""
        try:
            while chunk := connection.recv(4_096):
                received += chunk
        except ConnectionResetError:
            return received, True
        return received, False


def body_of(received: bytes) -> bytes:
    return received.partition(b"\r\n\r\n")[2]


def test_given_a_reset_then_not_even_the_headers_arrive(serve: Serve) -> None:
    client = serve(faulty(faults.reset()))
    assert exchange(client) == (b"", True)
    assert client.sandbox.requests[0].status is None
    assert client.segments().status_code == 200


def test_given_a_reset_within_the_body_then_so_many_bytes_arrive_before(serve: Serve) -> None:
    client = serve(faulty(faults.reset(after_bytes=7)))
    received, was_reset = exchange(client)
    assert (body_of(received), was_reset) == (b'{"resul', True)
    assert client.sandbox.requests[0].status is None


def test_given_a_cut_then_the_body_ends_before_its_announced_length(serve: Serve) -> None:
    client = serve(faulty(faults.cut(after_bytes=7)))
    received, was_reset = exchange(client)
    assert (body_of(received), was_reset) == (b'{"resul', False)
    whole = client.segments().content
    assert f"Content-Length: {len(whole)}\r\n".encode() in received
    assert [request.status for request in client.sandbox.requests] == [None, 200]


@pytest.mark.parametrize("fault", [faults.reset, lambda: faults.reset(9), lambda: faults.cut(9)])
def test_given_a_broken_connection_then_a_client_of_http_sees_it(serve: Serve, fault: Any) -> None:
    client = serve(faulty(fault()))
    with pytest.raises(requests.RequestException):
        client.segments()
    assert client.segments().status_code == 200


def test_given_a_delay_then_the_response_comes_later(serve: Serve) -> None:
    client = serve(faulty(faults.delay(0.2)))
    assert client.segments().elapsed.total_seconds() >= 0.2
    assert client.segments().status_code == 200


def test_given_a_drip_then_the_body_comes_byte_by_byte_and_whole(serve: Serve) -> None:
    client = serve(faulty(faults.drip(0.001)))
    started = time.perf_counter()
    dripped = client.segments()
    assert time.perf_counter() - started > 0.001 * len(dripped.content)
    assert dripped.content == client.segments().content


def test_given_a_client_that_leaves_a_drip_then_the_sandbox_goes_on(serve: Serve) -> None:
    client = serve(faulty(faults.drip(0.01)))
    address = urlsplit(client.sandbox.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=5) as connection:
        connection.sendall(
            f"GET {client.SEGMENTS}?integrated_account_id=a HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {DEFAULT_TOKEN}\r\n\r\n".encode()
        )
        connection.recv(16)
    time.sleep(0.05)
    assert client.segments().status_code == 200


def test_given_a_hang_then_no_response_is_logged(serve: Serve) -> None:
    client = serve(faulty(faults.hang()))
    with pytest.raises(requests.Timeout):
        client.session.get(
            f"{client.sandbox.url}{client.SEGMENTS}?integrated_account_id=a",
            headers={"Authorization": f"Bearer {DEFAULT_TOKEN}"},
            timeout=0.3,
        )
    assert client.sandbox.requests[0].status is None
    assert client.segments().status_code == 200
