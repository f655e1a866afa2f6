"""The CDK's own acceptance suite, run against the sandbox."""

from collections.abc import Iterator
from functools import lru_cache

import pytest
from airbyte_cdk.test.models import ConnectorTestScenario
from airbyte_cdk.test.standard_tests import SourceTestSuiteBase

from sandbox import Sandbox, demo_environment
from source_truto_segments import SourceTrutoSegments

pytest_plugins = ["airbyte_cdk.test.standard_tests.pytest_hooks"]


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    sandbox = Sandbox(demo_environment())
    sandbox.start()
    return sandbox


@pytest.fixture(scope="module", autouse=True)
def _stop_sandbox() -> Iterator[None]:
    yield
    _sandbox().stop()


# The suite only warns about some problems of the catalog. They fail here, since pyproject.toml
# makes every warning an error.
class TestAcceptance(SourceTestSuiteBase):
    connector = SourceTrutoSegments

    @classmethod
    def get_scenarios(cls) -> list[ConnectorTestScenario]:
        """Return the scenarios of acceptance-test-config.yml, with the sandbox's address."""
        return [cls._at_sandbox(scenario) for scenario in super().get_scenarios()]

    @classmethod
    def _at_sandbox(cls, scenario: ConnectorTestScenario) -> ConnectorTestScenario:
        given = scenario.get_config_dict(
            connector_root=cls.get_connector_root_dir(), empty_if_missing=False
        )
        return scenario.model_copy(update={"config_dict": {"api_url": _sandbox().url, **given}})
