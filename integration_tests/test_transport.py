"""Responses as a network delivers them: each belongs to its request, in time and of a sane size."""

import gzip
import threading

import pytest

from integration_tests.support import Serve, listed, numbered_account, read, read_in_real_time
from sandbox import Fault, faults
from source_truto_segments.truto import transport
from source_truto_segments.truto.transport import MemoryBudget


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_response(serve: Serve, status: int) -> None:
    """A late response that follows an interim one belongs to its own request."""
    segments = [[{"id": f"of {number}"}] for number in range(3)]
    fault = faults.interim(status, delay=0.1)
    sandbox = serve(
        numbered_account(0, segments=segments[0]),
        numbered_account(1, segments=segments[1], faults=[fault]),
        numbered_account(2, segments=segments[2]),
    )

    result = read(sandbox, additional_accounts=listed(0, 1, 2), num_workers=1)

    assert result.failure is None
    found = {record["integrated_account_id"]: record["id"] for record in result.records}
    assert found == {
        account.id: account.segments[0]["id"] for account in sandbox.environment.accounts
    }
    assert len(sandbox.requests) == 3


def test_interim_responses_without_end(serve: Serve) -> None:
    """If a server sends only interim responses, the connector asks again."""
    sandbox = serve(numbered_account(0, faults=[faults.interim(count=100)]))

    assert len(read(sandbox).records) == 3
    assert len(sandbox.requests) == 2


def test_slow_head(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of a response begins before its head."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.3)
    sandbox = serve(numbered_account(0, faults=[faults.interim(100, delay=0.05, count=100)]))

    result = read(sandbox)

    assert len(result.records) == 3
    assert [request.status for request in sandbox.requests] == [None, 200]


def test_excess(serve: Serve) -> None:
    """What follows the end of a response is not the response to the next request."""
    more = b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{"result": [], "next_cursor": ""}'
    first = faults.body(b'{"result": [{"id": "a"}], "next_cursor": null}')
    first.delivery = faults.Delivery(
        prelude=b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n"
        b'{"result": [{"id": "a"}]     }' + more
    )
    sandbox = serve(numbered_account(0, faults=[first]), numbered_account(1))

    result = read(sandbox, additional_accounts=listed(0, 1), num_workers=1)

    assert result.failure is None
    assert len(result.records) == 4


def compressed() -> Fault:
    page = b'{"result": [{"id": "%s"}], "next_cursor": null}' % (b"a" * 20_000)
    return faults.body(gzip.compress(page), headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize("segments", [[{"id": "a" * 20_000}], None], ids=["plain", "compressed"])
def test_too_large(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, segments: list[dict[str, str]] | None
) -> None:
    """A response that is too large fails only its account."""
    monkeypatch.setattr(transport, "MAX_RESPONSE_BYTES", 10_000)
    how = {"segments": segments} if segments else {"faults": [compressed()]}
    sandbox = serve(numbered_account(0, **how), numbered_account(1))

    result = read(sandbox, additional_accounts=listed(0, 1))

    (error,) = result.errors
    assert "the response is too large" in error["message"]
    assert len(sandbox.requests) == 2
    assert len(result.records) == 3


def test_budget(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that arrive together are all read, even if they do not fit into the memory budget."""
    monkeypatch.setattr(transport, "CAPACITY_BYTES", 10_000)
    accounts = [numbered_account(number, count=60, latency=0.05) for number in range(40)]
    result = read_in_real_time(serve(*accounts), additional_accounts=listed(*range(40)))

    assert len(result.records) == 40 * 60


def test_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread at a time exceeds the budget; another waits until that one releases its bytes."""
    monkeypatch.setattr(transport, "CAPACITY_BYTES", 100)
    budget, second = MemoryBudget(), threading.Event()

    def acquire() -> None:
        budget.acquire(60)
        second.set()
        budget.release()

    budget.acquire(60)
    budget.acquire(60)
    thread = threading.Thread(target=acquire)
    thread.start()
    assert not second.wait(0.05)
    budget.release()
    assert second.wait(5)
    thread.join()
    assert budget.waited() < 0.05
