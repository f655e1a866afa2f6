from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from integration_tests.processes import Processes
from sandbox import Account, Environment, Sandbox


@pytest.fixture
def serve() -> Iterator[Callable[..., Sandbox]]:
    """Starts sandboxes that end with the test."""
    with ExitStack() as stack:

        def start(*accounts: Account, **environment: object) -> Sandbox:
            return stack.enter_context(Sandbox(Environment(list(accounts), **environment)))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos", "reads through a faulty server (test_chaos.py)")
    chaos.addoption("--chaos-seeds", type=int, default=40, help="how many seeds (default: 40)")
    chaos.addoption("--chaos-from", type=int, default=0, help="the first seed (default: 0)")
