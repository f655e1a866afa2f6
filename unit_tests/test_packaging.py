"""The files that Airbyte and the registries read agree with each other and with the package."""

import importlib
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "source_truto_segments" / "VERSION").read_text().strip()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
METADATA: dict[str, Any] = yaml.safe_load((ROOT / "metadata.yaml").read_text())
DATA: dict[str, Any] = METADATA["data"]
SPEC: dict[str, Any] = json.loads((ROOT / "source_truto_segments" / "spec.json").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
ICON = ROOT / "icon.svg"


def in_dockerfile(pattern: str) -> str:
    """What the pattern's group holds in the one line that it fits."""
    (found,) = re.findall(rf"^{pattern}$", DOCKERFILE, re.MULTILINE)
    return str(found)


def all_uses(workflow: Any) -> list[str]:
    """The actions and workflows that a workflow uses, at whatever depth."""
    if isinstance(workflow, list):
        return [used for item in workflow for used in all_uses(item)]
    if not isinstance(workflow, dict):
        return []
    here = [workflow["uses"]] if "uses" in workflow else []
    return here + [used for item in workflow.values() for used in all_uses(item)]


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="Airbyte's models of metadata.yaml end at Python 3.12"
)
def test_given_airbytes_model_when_metadata_is_validated_then_it_fits() -> None:
    models = importlib.import_module(
        "airbyte_connector_models.metadata.v0.connector_metadata_definition_v0"
    )

    models.ConnectorMetadataDefinitionV0.model_validate(METADATA)


def test_given_metadata_when_its_definition_id_is_read_then_it_is_a_uuid_of_version_4() -> None:
    definition_id = uuid.UUID(DATA["definitionId"])

    assert str(definition_id) == DATA["definitionId"]
    assert definition_id.version == 4


def test_given_the_api_url_of_the_spec_when_hosts_are_allowed_then_it_is_the_only_one() -> None:
    api_url = SPEC["connectionSpecification"]["properties"]["api_url"]["default"]

    assert DATA["allowedHosts"] == {"hosts": [api_url.removeprefix("https://")]}


def test_given_the_spec_when_metadata_is_read_then_both_name_the_same_documentation() -> None:
    assert DATA["documentationUrl"] == SPEC["documentationUrl"]


def test_given_metadata_when_a_file_is_named_in_it_then_the_file_is_there() -> None:
    assert (ROOT / DATA["icon"]).is_file()


def test_given_the_suggested_streams_when_looked_for_then_each_has_a_schema() -> None:
    schemas = {path.stem for path in (ROOT / "source_truto_segments" / "schemas").iterdir()}

    assert set(DATA["suggestedStreams"]["streams"]) <= schemas


def test_given_the_version_when_setup_is_asked_then_its_name_and_version_are_the_same() -> None:
    asked = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--name", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert asked.stdout.split() == [DATA["remoteRegistries"]["pypi"]["packageName"], VERSION]


def test_given_the_version_when_metadata_is_read_then_its_image_tag_is_the_same() -> None:
    assert DATA["dockerImageTag"] == VERSION


def test_given_the_version_when_the_image_is_labelled_then_it_is_the_same() -> None:
    assert in_dockerfile(r"LABEL io\.airbyte\.version=(.*)") == VERSION


def test_given_the_version_when_the_changelog_is_read_then_its_newest_section_is_the_same() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    numbered = re.findall(r"^## \[?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)

    assert numbered[0] == VERSION


def test_given_the_images_name_when_labelled_then_it_is_the_one_in_metadata() -> None:
    assert in_dockerfile(r"LABEL io\.airbyte\.name=(.*)") == DATA["dockerRepository"]


def test_given_the_images_base_when_it_is_named_then_by_digest_and_as_in_metadata() -> None:
    base = in_dockerfile(r"ARG BASE_IMAGE=(.*)")

    assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", base)
    assert base == DATA["connectorBuildOptions"]["baseImage"]


def test_given_the_image_when_airbyte_starts_it_then_both_entry_points_are_the_same() -> None:
    entrypoint: list[str] = json.loads(in_dockerfile(r"ENTRYPOINT (.*)"))

    assert " ".join(entrypoint) == in_dockerfile(r'ENV AIRBYTE_ENTRYPOINT="(.*)"')


def test_given_the_image_when_it_runs_then_not_as_root() -> None:
    assert in_dockerfile(r"USER (.*)") == "airbyte"


def test_given_the_icon_when_measured_then_it_is_square_and_small() -> None:
    icon = ET.fromstring(ICON.read_text())  # noqa: S314 - a file of this project
    x, y, width, height = icon.attrib["viewBox"].split()

    assert (x, y, width) == ("0", "0", height)
    assert icon.attrib["width"] == icon.attrib["height"]
    assert ICON.stat().st_size < 4_000


def test_given_the_icon_when_searched_then_it_runs_nothing_and_loads_nothing() -> None:
    icon = ET.fromstring(ICON.read_text())  # noqa: S314 - a file of this project
    names = {element.tag.rpartition("}")[2] for element in icon.iter()}
    attributes = [item for element in icon.iter() for item in element.attrib.items()]

    assert names <= {"svg", "title", "rect", "path"}
    assert not [name for name, _ in attributes if name.startswith("on") or "href" in name]
    assert not [value for _, value in attributes if "url(" in value or "://" in value]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_given_a_workflow_when_read_then_it_is_yaml_that_may_only_read_by_default(
    path: Path,
) -> None:
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_given_a_workflow_when_it_uses_an_action_then_of_a_named_major_version(path: Path) -> None:
    for used in all_uses(yaml.safe_load(path.read_text())):
        assert used.startswith("./") or re.search(r"@(release/)?v\d+$", used), used


def test_given_the_supported_pythons_when_the_tests_run_then_on_each_of_them() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classified = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text())

    assert tested == classified
