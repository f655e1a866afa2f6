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
# Public and documented in spite of its name.
PUBLIC = {"os._exit"}


def in_dockerfile(pattern: str) -> str:
    """Return the pattern's group from the one line that the pattern matches."""
    (found,) = re.findall(rf"^{pattern}$", DOCKERFILE, re.MULTILINE)
    return str(found)


def all_uses(workflow: Any) -> list[str]:
    """Return the actions and workflows that a workflow uses, at any depth."""
    if isinstance(workflow, list):
        return [used for item in workflow for used in all_uses(item)]
    if not isinstance(workflow, dict):
        return []
    here = [workflow["uses"]] if "uses" in workflow else []
    return here + [used for item in workflow.values() for used in all_uses(item)]


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="Airbyte's models of metadata.yaml end at Python 3.12"
)
def test_model_of_metadata() -> None:
    """metadata.yaml is valid for Airbyte's model."""
    models = importlib.import_module(
        "airbyte_connector_models.metadata.v0.connector_metadata_definition_v0"
    )

    models.ConnectorMetadataDefinitionV0.model_validate(METADATA)


def test_definition_id() -> None:
    """The definition id is a UUID of version 4."""
    definition_id = uuid.UUID(DATA["definitionId"])

    assert str(definition_id) == DATA["definitionId"]
    assert definition_id.version == 4


def test_allowed_hosts() -> None:
    """The only allowed host is that of the default API URL."""
    api_url = SPEC["connectionSpecification"]["properties"]["api_url"]["default"]

    assert DATA["allowedHosts"] == {"hosts": [api_url.removeprefix("https://")]}


def test_documentation_url() -> None:
    """The spec and the metadata have the same documentation URL."""
    assert DATA["documentationUrl"] == SPEC["documentationUrl"]


def test_icon_exists() -> None:
    """The icon that the metadata names exists."""
    assert (ROOT / DATA["icon"]).is_file()


def test_suggested_streams() -> None:
    """Each suggested stream has a schema."""
    schemas = {path.stem for path in (ROOT / "source_truto_segments" / "schemas").iterdir()}

    assert set(DATA["suggestedStreams"]["streams"]) <= schemas


def test_name_and_version_of_setup() -> None:
    """setup.py has the metadata's name and the package's version."""
    asked = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--name", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert asked.stdout.split() == [DATA["remoteRegistries"]["pypi"]["packageName"], VERSION]


def test_labels_of_image() -> None:
    """The image's labels and the metadata have the same name, and the package's version."""
    assert DATA["dockerImageTag"] == VERSION == in_dockerfile(r"LABEL io\.airbyte\.version=(.*)")
    assert in_dockerfile(r"LABEL io\.airbyte\.name=(.*)") == DATA["dockerRepository"]


def test_base_image() -> None:
    """The base image is pinned by digest, and the same as in the metadata."""
    base = in_dockerfile(r"ARG BASE_IMAGE=(.*)")

    assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", base)
    assert base == DATA["connectorBuildOptions"]["baseImage"]


def test_entry_point() -> None:
    """The image's entry point and Airbyte's variable for it are the same."""
    entrypoint: list[str] = json.loads(in_dockerfile(r"ENTRYPOINT (.*)"))

    assert " ".join(entrypoint) == in_dockerfile(r'ENV AIRBYTE_ENTRYPOINT="(.*)"')


def test_user_of_image() -> None:
    """The image does not run as root."""
    assert in_dockerfile(r"USER (.*)") == "airbyte"


def test_size_of_icon() -> None:
    """The icon is square and small."""
    icon = ET.fromstring(ICON.read_text())  # noqa: S314 - a file of this project
    x, y, width, height = icon.attrib["viewBox"].split()

    assert (x, y, width) == ("0", "0", height)
    assert icon.attrib["width"] == icon.attrib["height"]
    assert ICON.stat().st_size < 4_000


def test_content_of_icon() -> None:
    """The icon neither runs nor loads anything."""
    icon = ET.fromstring(ICON.read_text())  # noqa: S314 - a file of this project
    names = {element.tag.rpartition("}")[2] for element in icon.iter()}
    attributes = [item for element in icon.iter() for item in element.attrib.items()]

    assert names <= {"svg", "title", "rect", "path"}
    assert not [name for name, _ in attributes if name.startswith("on") or "href" in name]
    assert not [value for _, value in attributes if "url(" in value or "://" in value]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_permissions(path: Path) -> None:
    """By default, a workflow may only read."""
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]


def test_supported_pythons() -> None:
    """The workflow tests each supported Python."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classified = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text())

    assert tested == classified


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.endswith("__")


def private_names(node: ast.AST) -> set[str]:
    """Return the private names of the functions, classes and attributes that code defines."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            found.add(inner.name)
        elif isinstance(inner, ast.Name | ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id if isinstance(inner, ast.Name) else inner.attr)
    return set(filter(is_private, found))


def private_uses(source: str) -> Iterator[str]:
    """Yield the uses of private names that the source of a module does not define itself."""
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
    """Return the private names that a class shares with bases from other packages."""
    bases = [base for base in kind.__mro__[1:] if base.__module__.partition(".")[0] not in OURS]
    return {name for base in bases for name in names_in(kind) & names_in(base)}


def names_in(kind: type) -> set[str]:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        # The class is written in C, as those of io and, from Python 3.12 on, typing.Generic are.
        # Such a class has no instance attributes.
        return {name for name in vars(kind) if name[0] == "_" and not name.endswith("__")}
    return private_names(ast.parse(dedent(source)))


def undeclared(sources: dict[str, str], requirements: list[str]) -> set[str]:
    """Return the imported top-level modules that belong to no requirement."""
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
    """Return the top-level modules of an installed distribution."""
    paths = importlib.metadata.files(distribution) or []
    return {path.parts[0].partition(".")[0] for path in paths}


def imported_modules(source: str) -> set[str]:
    """Return the modules of the package that a piece of code imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in SOURCES} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.partition(".")[0] == PACKAGE}


def folder_of(module: str) -> str:
    """Return the folder of a module within the package; "" at its top."""
    _, folder, *rest = [*module.split("."), ""]
    return folder if rest and folder in FOLDERS else ""


def requirements_of_setup() -> list[Requirement]:
    """Return the install_requires of setup.py."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            return list(map(Requirement, ast.literal_eval(node.value)))
    raise AssertionError("setup.py has no install_requires")


@pytest.mark.parametrize("module", SOURCES)
def test_no_private_uses(module: str) -> None:
    """A module uses no private name that it does not define itself."""
    assert [use for use in private_uses(SOURCES[module]) if use not in PUBLIC] == []


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.endswith("__init__")])
def test_no_shared_private_names(module: str) -> None:
    """The package's classes share no private name with bases from other packages."""
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
def test_search_for_private_uses(source: str, expected: list[str]) -> None:
    """The search finds each use of a private name that the code does not define itself."""
    assert list(private_uses(source)) == expected


def test_search_for_shared_private_names() -> None:
    """The search finds a private name that a class has in common with its base."""

    class Adapter(HTTPAdapter):
        def _f(self) -> None:
            self._pool_block = True

    assert shared_privates(Adapter) == {"_pool_block"}


def test_requirements() -> None:
    """setup.py declares each imported package, and no package that is not imported."""
    names = [requirement.name for requirement in requirements_of_setup()]

    assert undeclared(SOURCES, names) == set()
    for name in names:
        others = [other for other in names if other != name]
        assert undeclared(SOURCES, others), f"{name} is declared, but not imported"


@pytest.mark.parametrize("module", SOURCES)
def test_direction_of_imports(module: str) -> None:
    """truto/ and records/ import only from themselves; sync/ also from both, config and streams."""
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


def test_no_import_circle() -> None:
    """The modules can be ordered so that each imports only those before it."""
    remaining = {name: imported_modules(source) - {name} for name, source in SOURCES.items()}
    while free := [name for name, needs in remaining.items() if not needs & remaining.keys()]:
        for name in free:
            del remaining[name]

    assert remaining == {}


@pytest.mark.parametrize("pattern", ["VERSION", "py.typed", "spec.json", "schemas/*.json"])
def test_package_data(pattern: str) -> None:
    """Each file that is not Python exists, and setup.py declares it."""
    assert list((ROOT / "source_truto_segments").glob(pattern))
    assert f'"{pattern}"' in (ROOT / "setup.py").read_text()
