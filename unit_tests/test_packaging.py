"""The files that Airbyte and the registries read agree with each other and with the package."""

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from packaging.requirements import Requirement
from requests.adapters import HTTPAdapter

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "source_truto_segments" / "VERSION").read_text().strip()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
METADATA: dict[str, Any] = yaml.safe_load((ROOT / "metadata.yaml").read_text())
DATA: dict[str, Any] = METADATA["data"]
SPEC: dict[str, Any] = json.loads((ROOT / "source_truto_segments" / "spec.json").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
ICON = ROOT / "icon.svg"
PACKAGE = "source_truto_segments"
# The source of each module, by its name with dots.
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text()
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
FOLDERS = ("truto", "records", "sync")
OURS = {PACKAGE, "builtins"}
# Documented in spite of its name.
PUBLIC = {"os._exit"}


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


def test_given_the_supported_pythons_when_the_tests_run_then_on_each_of_them() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classified = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text())

    assert tested == classified


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.endswith("__")


def private_names(node: ast.AST) -> set[str]:
    """The private names that a piece of code defines: its functions, classes and attributes."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            found.add(inner.name)
        elif isinstance(inner, ast.Name | ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id if isinstance(inner, ast.Name) else inner.attr)
    return set(filter(is_private, found))


def private_uses(source: str) -> Iterator[str]:
    """The uses of private names that the source of a module does not define itself."""
    tree = ast.parse(source)
    own = private_names(tree)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            imported |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            origin = getattr(node, "module", None) or ""
            paths = [f"{origin}.{name}".strip(".") for name in names]
            yield from (path for path in paths if any(map(is_private, path.split("."))))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            texts = (each.value for each in node.args if isinstance(each, ast.Constant))
            is_lookup = node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            yield from (
                f"{node.func.id} {text}"
                for text in texts
                if is_lookup and isinstance(text, str) and is_private(text) and text not in own
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = ast.unparse(node.value).partition(".")[0]
            if root in imported or node.attr not in own:
                yield ast.unparse(node)


def classes_of(module: ModuleType) -> list[type]:
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def shared_privates(kind: type) -> set[str]:
    """The private names that a class has in common with a base class of somebody else's."""
    bases = [base for base in kind.__mro__[1:] if base.__module__.partition(".")[0] not in OURS]
    return {name for base in bases for name in names_in(kind) & names_in(base)}


def names_in(kind: type) -> set[str]:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        # Written in C, as io's classes are, and typing.Generic from Python 3.12 on: such a class
        # has no instance attributes.
        return {name for name in vars(kind) if name[0] == "_" and not name.endswith("__")}
    return private_names(ast.parse(dedent(source)))


def undeclared(sources: dict[str, str], requirements: list[str]) -> set[str]:
    """The top-level modules that are imported and belong to no requirement."""
    imported: set[str] = set()
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    third_party = imported - sys.stdlib_module_names - {PACKAGE}
    return third_party - {module for name in requirements for module in modules_of(name)}


def modules_of(distribution: str) -> set[str]:
    """The top-level modules of an installed distribution."""
    paths = importlib.metadata.files(distribution) or []
    return {path.parts[0].partition(".")[0] for path in paths}


def imported_modules(source: str) -> set[str]:
    """The modules of the package that a piece of code imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in SOURCES} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.partition(".")[0] == PACKAGE}


def folder_of(module: str) -> str:
    """The folder of a module within the package; "" at its top."""
    _, folder, *rest = [*module.split("."), ""]
    return folder if rest and folder in FOLDERS else ""


def requirements_of_setup() -> list[Requirement]:
    """The install_requires of setup.py."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            return list(map(Requirement, ast.literal_eval(node.value)))
    raise AssertionError("setup.py has no install_requires")


@pytest.mark.parametrize("module", SOURCES)
def test_given_the_packages_code_when_read_then_it_uses_no_private_member_of_others(
    module: str,
) -> None:
    assert [use for use in private_uses(SOURCES[module]) if use not in PUBLIC] == []


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.endswith("__init__")])
def test_given_the_packages_classes_when_compared_with_their_bases_then_they_share_no_private_name(
    module: str,
) -> None:
    for kind in classes_of(importlib.import_module(module)):
        assert shared_privates(kind) == set(), kind


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import requests._types", ["requests._types"]),
        ("from requests import _types", ["requests._types"]),
        ("from airbyte_cdk._util.x import y", ["airbyte_cdk._util.x.y"]),
        ("import os\nos._exit(1)", ["os._exit"]),
        ("import os\ndef _exit(): ...\nos._exit(1)", ["os._exit"]),
        ("def f(stream): return stream._client.x", ["stream._client"]),
        ("class A(B):\n  def f(self): return self._client", ["self._client"]),
        ("def f(x): return getattr(x, '_y')", ["getattr _y"]),
        ("class A:\n  _x = 1\n  def f(self, other): self._y = other._x + other._y", []),
        ("class A:\n  def _f(self): self._f()\n  def g(self, e): return e.__cause__", []),
    ],
)
def test_given_code_when_searched_for_private_uses_then_those_of_others_are_found(
    source: str, expected: list[str]
) -> None:
    assert list(private_uses(source)) == expected


def test_given_a_class_with_a_private_name_of_its_base_when_compared_then_it_is_found() -> None:
    class Adapter(HTTPAdapter):
        def _f(self) -> None:
            self._pool_block = True

    assert shared_privates(Adapter) == {"_pool_block"}


def test_given_the_packages_imports_when_compared_with_setup_then_each_is_declared() -> None:
    names = [requirement.name for requirement in requirements_of_setup()]

    assert undeclared(SOURCES, names) == set()
    for name in names:
        others = [other for other in names if other != name]
        assert undeclared(SOURCES, others), f"{name} is declared, but not imported"


@pytest.mark.parametrize("module", SOURCES)
def test_direction_of_imports(module: str) -> None:
    """Truto's API and the rows know neither each other, nor the sync, nor what Airbyte sees."""
    allowed = {
        "truto": {"truto"},
        "records": {"records"},
        "sync": {"truto", "records", "sync", "config", "streams"},
    }
    imported = imported_modules(SOURCES[module])
    known = {folder_of(name) or name.removeprefix(f"{PACKAGE}.") for name in imported}

    assert len(SOURCES) > 25
    assert {folder_of(name) for name in SOURCES} == {"", *FOLDERS}
    assert known <= allowed.get(folder_of(module), known)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from source_truto_segments.sync import sync", {"source_truto_segments.sync.sync"}),
        ("from source_truto_segments.config import Config", {"source_truto_segments.config"}),
        ("import source_truto_segments.truto.client", {"source_truto_segments.truto.client"}),
        ("import requests", set()),
    ],
)
def test_imports_are_found(source: str, expected: set[str]) -> None:
    """Each form of an import."""
    assert imported_modules(source) == expected


def test_no_import_circle() -> None:
    """Modules can be ordered so that each imports only those before it."""
    remaining = {name: imported_modules(source) - {name} for name, source in SOURCES.items()}
    while free := [name for name, needs in remaining.items() if not needs & remaining.keys()]:
        for name in free:
            del remaining[name]

    assert remaining == {}


@pytest.mark.parametrize("pattern", ["VERSION", "py.typed", "spec.json", "schemas/*.json"])
def test_given_a_file_that_is_not_python_when_packaged_then_it_is_there_and_declared(
    pattern: str,
) -> None:
    assert list((ROOT / "source_truto_segments").glob(pattern))
    assert f'"{pattern}"' in (ROOT / "setup.py").read_text()
