"""The faulty proxy itself: a faulty response can be recognized as one, or is harmless."""

from collections.abc import Iterator

import pytest
import requests

from integration_tests import faulty_proxy
from integration_tests.faulty_proxy import NO_FAULTS, FaultRates, FaultyProxy
from integration_tests.network_faults import HARMLESS, PERMANENT, TRANSIENT, NetworkFault
from integration_tests.support import account
from sandbox import Environment, Sandbox
from source_truto_segments.truto.responses import MalformedResponseError, Page, parse_page
from source_truto_segments.truto.transport import DeadlineAdapter

URL = "/unified/marketing-automation/segments"
TRIES = 40


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Environment([account()])) as started:
        yield started


def fetch_repeatedly(
    sandbox: Sandbox, rates: FaultRates, tries: int, timeout: float = 10.0
) -> Iterator[Page | None]:
    """Yield the page that a client with one connection gets each time, or None."""
    environment = sandbox.environment
    with FaultyProxy(sandbox.url, 0, rates) as proxy, requests.Session() as session:
        # This is the connector's own adapter: requests takes an interim response for the response.
        session.mount(proxy.url, DeadlineAdapter())
        session.headers["Authorization"] = f"Bearer {environment.token}"
        params = {"integrated_account_id": environment.accounts[0].id}
        for _ in range(tries):
            try:
                response = session.get(
                    f"{proxy.url}{URL}", params=params, timeout=timeout, allow_redirects=False
                )
                yield parse_page(response.content) if response.status_code == 200 else None
            except (requests.RequestException, MalformedResponseError):
                yield None


@pytest.mark.parametrize("fault", HARMLESS, ids=lambda fault: fault.__name__)
def test_unusual_delivery(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, fault: NetworkFault
) -> None:
    """After an unusual delivery, the page is still the right one."""
    (right,) = fetch_repeatedly(sandbox, NO_FAULTS, 1)
    assert right
    monkeypatch.setattr(faulty_proxy, "HARMLESS", (fault,))

    assert list(fetch_repeatedly(sandbox, FaultRates(harmless=1.0), TRIES)) == [right] * TRIES


@pytest.mark.parametrize(
    "fault", sorted({*TRANSIENT, *PERMANENT}, key=repr), ids=lambda fault: fault.__name__
)
def test_fault(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, fault: NetworkFault) -> None:
    """No fault makes up another page."""
    (right,) = fetch_repeatedly(sandbox, NO_FAULTS, 1)
    monkeypatch.setattr(faulty_proxy, "TRANSIENT", (fault,))

    found = list(fetch_repeatedly(sandbox, FaultRates(transient=1.0), TRIES))

    assert all(page in (None, right) for page in found)
    assert found.count(None) > TRIES / 2


def test_same_seed(sandbox: Sandbox) -> None:
    """If a seed is drawn again, the same happens."""
    rates = FaultRates(harmless=0.3, transient=0.3, permanent=0.1)

    first, second = (list(fetch_repeatedly(sandbox, rates, TRIES)) for _ in range(2))

    assert first == second
    assert None in first
    assert any(first)
