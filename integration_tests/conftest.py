from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from integration_tests.processes import Processes
from sandbox import Account, Environment, Sandbox
from source_truto_segments.config import Config


@pytest.fixture
def serve() -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes that stop when the test ends."""
    with ExitStack() as stack:

        def start(*accounts: Account, **environment: object) -> Sandbox:
            return stack.enter_context(Sandbox(Environment(list(accounts), **environment)))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def trutos_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the connector take the sandbox for Truto's own host, whose responses it quotes."""
    monkeypatch.setattr(Config, "asks_truto", True)


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, seeds, description in (
        ("chaos", 40, "reads through a faulty network (test_chaos.py)"),
        ("capture", 120, "syncs of accounts that change (test_change_capture.py)"),
        ("fuzz", 3, "syncs whose every response is fuzzed (test_fuzz.py)"),
    ):
        group = parser.getgroup(name, description)
        help_ = f"how many seeds (default: {seeds})"
        group.addoption(f"--{name}-seeds", type=int, default=seeds, help=help_)
        group.addoption(f"--{name}-from", type=int, default=0, help="the first seed (default: 0)")
