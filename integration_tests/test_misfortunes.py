"""The faulty server itself: what it does to an answer can be told from the answer, or is none."""

from collections.abc import Iterator

import pytest
import requests

from integration_tests import faulty_proxy
from integration_tests.faulty_proxy import FaultyProxy, Weather
from integration_tests.misfortunes import LASTING, ODD_WAYS, PASSING, TIMEOUTS, Misfortune
from integration_tests.support import account
from sandbox import Environment, Sandbox
from source_truto_segments.envelope import MalformedAnswerError, Page, parse_page

URL = "/unified/marketing-automation/segments"
TRIES = 40


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Environment([account()])) as started:
        yield started


def answers(
    sandbox: Sandbox, weather: Weather, tries: int, timeout: float = 10.0
) -> Iterator[Page | None]:
    """What a client of one connection makes of the same request again and again."""
    environment = sandbox.environment
    with FaultyProxy(sandbox.url, 0, weather) as proxy, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {environment.token}"
        params = {"integrated_account_id": environment.accounts[0].id}
        for _ in range(tries):
            try:
                response = session.get(
                    f"{proxy.url}{URL}", params=params, timeout=timeout, allow_redirects=False
                )
                yield parse_page(response.content) if response.status_code == 200 else None
            except (requests.RequestException, MalformedAnswerError):
                yield None


@pytest.mark.parametrize("misfortune", ODD_WAYS, ids=lambda misfortune: misfortune.__name__)
def test_given_an_odd_way_when_asked_then_the_answer_is_the_right_one(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, misfortune: Misfortune
) -> None:
    (right,) = answers(sandbox, faulty_proxy.CALM, 1)
    assert right
    monkeypatch.setattr(faulty_proxy, "ODD_WAYS", (misfortune,))

    assert list(answers(sandbox, Weather(odd=1.0), TRIES)) == [right] * TRIES


@pytest.mark.parametrize(
    "misfortune", sorted({*PASSING, *LASTING}, key=repr), ids=lambda misfortune: misfortune.__name__
)
def test_given_a_misfortune_when_asked_then_no_other_page_is_made_up(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, misfortune: Misfortune
) -> None:
    (right,) = answers(sandbox, faulty_proxy.CALM, 1)
    monkeypatch.setattr(faulty_proxy, "PASSING", (misfortune,))

    found = list(answers(sandbox, Weather(passing=1.0), TRIES))

    assert all(page in (None, right) for page in found)
    assert found.count(None) > TRIES / 2


@pytest.mark.parametrize("misfortune", TIMEOUTS, ids=lambda misfortune: misfortune.__name__)
def test_given_a_late_answer_when_asked_then_it_does_not_come_in_time(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, misfortune: Misfortune
) -> None:
    monkeypatch.setattr(faulty_proxy, "TIMEOUTS", (misfortune,))

    assert list(answers(sandbox, Weather(timeout=1.0), 2, timeout=0.1)) == [None, None]


def test_given_a_seed_when_drawn_again_then_the_same_happens(sandbox: Sandbox) -> None:
    weather = Weather(odd=0.3, passing=0.3, lasting=0.1)

    first, second = (list(answers(sandbox, weather, TRIES)) for _ in range(2))

    assert first == second
    assert None in first
    assert any(first)
