from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sandbox import Account, Environment, Sandbox


@pytest.fixture
def serve() -> Iterator[Callable[..., Sandbox]]:
    """Starts sandboxes that end with the test."""
    with ExitStack() as stack:

        def start(*accounts: Account, **environment: object) -> Sandbox:
            return stack.enter_context(Sandbox(Environment(list(accounts), **environment)))  # type: ignore[arg-type]

        yield start
