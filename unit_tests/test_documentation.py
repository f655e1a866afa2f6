"""The documentation covers each field, column, message, version and folder of the code."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction

from integration_tests.support import error_resolutions
from source_truto_segments.config import INTEGRATIONS, Config, ConfigError
from source_truto_segments.records.columns import load_schema
from source_truto_segments.streams import STREAMS, Streams, TrutoStream
from source_truto_segments.sync.progress import Progress
from source_truto_segments.sync.state import FullRefreshState, IncrementalState, StreamState
from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError, Resolution, Scope
from source_truto_segments.truto.responses import Speaker

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "source_truto_segments"
VERSION = (PACKAGE / "VERSION").read_text().strip()
SPEC = json.loads((PACKAGE / "spec.json").read_text())["connectionSpecification"]

TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "docs/truto-segments.md",
        "docs/messages.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    )
}
README, PAGE = TEXTS["README.md"], TEXTS["docs/truto-segments.md"]
MESSAGES, CONTRIBUTING = TEXTS["docs/messages.md"], TEXTS["CONTRIBUTING.md"]

# Airbyte requires these headings of a connector's page, in this order. After the set-up and the
# streams, a page may have headings of its own.
HEADINGS = [
    "# Truto Segments",
    "## Prerequisites",
    "## Setup guide",
    "## Set up Truto Segments",
    "### For Airbyte Cloud:",
    "### For Airbyte Open Source:",
    "### With PyAirbyte:",
    "### With Meltano:",
    "### On the command line:",
    "### Recommended settings",
    "### Configuration",
    "## What a sync costs",
    "## First queries",
    "## When a customer disconnects",
    "## What was deleted",
    "## What each vendor has",
    "## Models for dbt",
    "## When the schema changes",
    "## Supported sync modes",
    "## Supported Streams",
    "### Columns of segments",
    "### Columns of integrated_accounts",
    "### Columns of workspaces",
    "### Custom fields",
    "### Column selection",
    "## Deletions",
    "## State",
    "### Shards",
    "## IP allow list",
    "### Performance considerations",
    "## Data type map",
    "## Limitations & Troubleshooting",
    "### Limitations",
    "### Messages",
    "## Changelog",
]

CONFIG: dict[str, Any] = {
    "token": "t0ken",
    "integrated_account_id": "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65",
}
NOW = datetime(2026, 11, 24, 16, tzinfo=timezone.utc)


def headings(page: str) -> list[str]:
    without_code = re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ .*$", without_code, re.MULTILINE)


def section(page: str, heading: str) -> str:
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, heading
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(page: str) -> list[list[str]]:
    """Return the cells of each row of each table, without the tables' heads."""
    lines = re.findall(r"^\| (.*) \|$", page, re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    rules = [number for number, row in enumerate(cells) if set("".join(row)) <= set(":- ")]
    heads = {number - 1 for number in rules} | set(rules)
    return [row for number, row in enumerate(cells) if number not in heads]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the title of each field of the form, at any depth."""
    for name, field in schema.get("properties", {}).items():
        if "title" in field:
            yield name, field["title"]
        yield from fields(field)
    for nested in [*schema.get("oneOf", []), *filter(None, [schema.get("items")])]:
        yield from fields(nested)


def column_type(schema: Mapping[str, Any]) -> str:
    if schema.get("airbyte_type") == "timestamp_with_timezone":
        return "timestamp with time zone"
    types = schema["type"]
    (name,) = {*([types] if isinstance(types, str) else types)} - {"null"}
    return str(name)


def text_of(node: ast.AST) -> str | None:
    """Return the text of a string in the code, with … for inserted values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[\d.]*[a-z]|\{\}", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    return None


def calls(*names: str) -> list[str]:
    """Return the first argument of each call of these functions and methods, if it is a text."""
    found = []
    for node in NODES:
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            text = text_of(node.args[0]) if name in names else None
            if text and re.search(r"[a-z]{3}", text):
                found.append(text)
    return found


NODES = [
    node
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
]
# Warnings about the data of a partition begin with the partition's name.
DATA_ISSUES = [
    f"…: {text_of(value)}"
    for node in NODES
    if isinstance(node, ast.Dict)
    for value in node.values
    if isinstance(value, ast.Constant) and "{}" in str(value.value)
]
LOGGED = [*calls("warning", "info"), *DATA_ISSUES]
DOCUMENTED = [
    re.compile(re.escape(message.replace("\\|", "|")).replace("…", ".+"))
    for row in rows(MESSAGES)
    for message in row[0].split("<br/>")
]


def is_documented(message: str) -> bool:
    """Return whether a row of the page has the message's first sentence, or all of it."""
    first = re.split(r"(?<=\.) ", message)[0]
    return any(row.fullmatch(text) for row in DOCUMENTED for text in (first, message))


def test_headings() -> None:
    """The guide has the headings that Airbyte requires and its own, in order."""
    assert headings(PAGE) == HEADINGS


@pytest.mark.parametrize("name", TEXTS)
def test_only_encrypted_urls(name: str) -> None:
    """Airbyte's checks fail if a page has an unencrypted URL."""
    assert "http://" not in TEXTS[name]


def test_steps_for_airbyte_cloud() -> None:
    """Airbyte's checks compare the section's beginning with a template."""
    steps = section(PAGE, "### For Airbyte Cloud:")
    assert steps.startswith(
        "\n1. [Log into your Airbyte Cloud](https://cloud.airbyte.com/workspaces)"
    )


def test_required_fields() -> None:
    """The prerequisites list the title of each required field."""
    for name in SPEC["required"]:
        assert SPEC["properties"][name]["title"] in section(PAGE, "## Prerequisites")


def test_nested_fields() -> None:
    """The listed fields of the form include those that are nested in others."""
    names = {name for name, _ in fields(SPEC)}

    assert names > {*SPEC["properties"], "ids", "integrations", "tenant_ids", "value"}


@pytest.mark.parametrize(("name", "title"), list(fields(SPEC)))
def test_field_of_form(name: str, title: str) -> None:
    """The guide lists each field of the form by its name and title."""
    table = rows(section(PAGE, "### Configuration"))

    assert any(f"`{name}`" in " ".join(row) and title in " ".join(row) for row in table)


def test_defaults_and_bounds() -> None:
    """The guide has the defaults, bounds and options of the fields."""
    table = {row[1].strip("`"): row[2] for row in rows(section(PAGE, "### Configuration"))}
    properties = SPEC["properties"]
    workers, on_error = properties["num_workers"], properties["on_account_error"]

    assert table["num_workers"].startswith(f"{workers['minimum']} to {workers['maximum']}:")
    assert "default" not in workers
    assert f"By default `{properties['api_url']['default']}`" in table["api_url"]
    assert f"`{on_error['default']}` (the default)" in table["on_account_error"]
    assert all(f"`{value}`" in table["on_account_error"] for value in on_error["enum"])
    assert set(re.findall(r"`(\w+)`", table["integrations"])) == INTEGRATIONS
    for form in properties["additional_accounts"]["oneOf"]:
        mode = form["properties"]["mode"]["const"]
        assert f"_{form['title']}_ (mode `{mode}`" in table["additional_accounts"]
    assert "(mode `none`, the default)" in table["additional_accounts"]
    assert properties["additional_accounts"]["default"] == {"mode": "none"}


@pytest.mark.parametrize("resolution", error_resolutions(), ids=lambda row: row.error_message)
def test_row_of_error_table(resolution: Resolution) -> None:
    """The page of messages has the type and the retry of each row of the error table."""
    table = rows(section(MESSAGES, "## Failures of requests"))
    (row,) = [row for row in table if resolution.error_message in row[0].split("<br/>")]
    _, kind, is_retried, _ = row

    assert kind.split(",")[0] == resolution.failure_type.value.removesuffix("_error")
    assert ("whole sync" in kind) is (resolution.scope is Scope.SYNC)
    assert is_retried == ("no" if resolution.response_action is ResponseAction.FAIL else "yes")


@pytest.mark.parametrize("stream", STREAMS)
def test_operations(stream: str) -> None:
    """The page of messages has each operation that a message begins with."""
    declared: TrutoStream = getattr(Streams.build(Config.parse(CONFIG)), stream)
    assert is_documented(declared.request_for({"integrated_account_id": "x"}).operation)
    if stream == "integrated_accounts":
        assert is_documented(declared.request_for({}).operation)


def test_example_of_failure() -> None:
    """The example of a failure is exactly what the connector writes."""
    (example,) = blocks(section(MESSAGES, "## How a failure looks"), "")
    resolution = errors.ERROR_MAPPING[401, Speaker.VENDOR]
    _, _, rest = example.partition(resolution.error_message)
    detail = rest.partition(f". {resolution.guidance}")[0]
    operation = example.partition(" failed: ")[0]

    assert str(ReadError(resolution, operation, detail=detail)) == example.strip()
    assert is_documented(operation)


@pytest.mark.parametrize("message", calls("ConfigError", "MachineError"))
def test_configuration_errors(message: str) -> None:
    """The page of messages has each configuration error of the code."""
    assert is_documented(message)


@pytest.mark.parametrize(
    "given",
    [
        {"token": None},
        {"token": ""},
        {"token": " "},
        {"token": "a b"},
        {"token": 5},
        {"integrated_account_id": "1"},
        {"page_size": 0},
        {"num_workers": 201},
        {"on_account_error": "no"},
        {"additional_accounts": {"mode": "some"}},
        {"additional_accounts": {"mode": "listed", "ids": []}},
        {"additional_accounts": {"mode": "listed", "ids": ["1"]}},
        {"additional_accounts": []},
        {"remote_query": 5},
        {"remote_query": [5]},
        {"remote_query": [{"name": "a"}]},
        {"workspace_id": "\ud800"},
        {"api_url": "truto"},
        {"api_url": "https://a:b@truto"},
        {"api_url": "http://truto.example"},
    ],
    ids=str,
)
def test_mistake_in_configuration(given: dict[str, Any]) -> None:
    """The page of messages has the error for each mistake in a configuration."""
    with pytest.raises(ConfigError) as mistake:
        Config.parse({**CONFIG, **given})

    assert is_documented(str(mistake.value))


def test_collected_messages() -> None:
    """The messages that are collected from the code include each kind."""
    assert "The catalog selects no stream, so nothing is read." in LOGGED
    assert any("…: records without an id: …." in text for text in LOGGED)
    assert any("was written by version 0.1" in text for text in LOGGED)
    assert not is_documented("A message that no page has.")


@pytest.mark.parametrize("message", LOGGED)
def test_logged_messages(message: str) -> None:
    """The page of messages has each message that the code logs."""
    assert is_documented(message)


@pytest.mark.parametrize(
    "message",
    [
        "The sync was interrupted before all accounts were read. ",
        "Asked … of … for segments: ….",
        "The connector failed unexpectedly (…: …). ",
        "The stream integrated_accounts cannot be read. ",
    ],
)
def test_other_endings(message: str) -> None:
    """The page of messages has the code's text for each other way that a command ends."""
    assert any((text_of(node) or "").startswith(message) for node in NODES)
    assert is_documented(message)


def test_progress() -> None:
    """The page of messages has the lines that report progress."""
    progress = Progress(found={"a", "b"}, failed={"a"})

    assert is_documented(progress.status_line([]))
    assert is_documented(progress.final_summary(["segments"]))


@pytest.mark.parametrize("stream", STREAMS)
def test_columns(stream: str) -> None:
    """The guide lists the columns of each stream with their types."""
    properties = load_schema(stream)["properties"]
    table = rows(section(PAGE, f"### Columns of {stream}"))

    assert [(row[0].strip("`"), row[1]) for row in table] == [
        (name, column_type(schema)) for name, schema in properties.items()
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    """The guide has the primary key of each stream, and the README lists the stream."""
    keys = {row[0]: row[2] for row in rows(section(PAGE, "## Supported Streams"))}
    key = getattr(Streams.build(Config.parse(CONFIG)), name).primary_key
    names = [key] if isinstance(key, str) else key

    assert keys[f"`{name}`"] == ", ".join(f"`{part}`" for part in names or [])
    assert f"| `{name}` | " in README


def test_example_states() -> None:
    """The guide's examples of a state stay the same when they are loaded and written."""
    incremental, full_refresh = map(json.loads, blocks(section(PAGE, "## State"), "json"))
    states: list[StreamState] = [
        IncrementalState.load(incremental, {}, columns=incremental["columns"]),
        FullRefreshState.load(full_refresh, full_refresh["filters"], NOW),
    ]

    assert [state.snapshot() for state in states] == [incremental, full_refresh]


@pytest.mark.parametrize("page", ["README.md", "docs/truto-segments.md"])
def test_recommended_configuration(page: str) -> None:
    """The recommended configuration is valid, except for its placeholder of a token."""
    example = next(json.loads(block) for block in blocks(TEXTS[page], "json") if "token" in block)

    with pytest.raises(ConfigError, match="token"):
        Config.parse(example)
    parsed = Config.parse({**example, "token": "t0ken"})
    assert parsed.account_list is not None
    assert parsed.skip_failed_accounts


def test_changelogs() -> None:
    """Both changelogs list the same versions, of which the current one is the first."""
    head = r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$"
    versions = re.findall(head, TEXTS["CHANGELOG.md"], re.MULTILINE)
    changelog = section(PAGE, "## Changelog")

    assert versions[0][0] == VERSION
    assert [(row[0], row[1]) for row in rows(changelog)] == versions
    assert "<details>" in changelog


def test_image_tags() -> None:
    """Each image in the texts has the tag of the current version."""
    tags = re.findall(r"airbyte/source-truto-segments:([\d.]+\d)", "".join(TEXTS.values()))

    assert set(tags) == {VERSION}


def test_layout_of_package() -> None:
    """The layout in CONTRIBUTING has every folder of the package."""
    shown = re.findall(r"^  (\S+)/  +\S", section(CONTRIBUTING, "## Layout"), re.MULTILINE)
    folders = {path.parent.name for path in PACKAGE.glob("*/*") if "__pycache__" not in path.parts}
    modules = {path.name for path in PACKAGE.rglob("*.py")} - {"__init__.py"}
    named = set(
        re.findall(r"(?<![\w/])\w+\.py", section(CONTRIBUTING, "## How a page becomes messages"))
    )

    assert len(shown) == len(set(shown))
    assert set(shown) == folders == {"truto", "records", "sync", "schemas"}
    assert {"reader.py", "partition.py", "worker_pool.py"} <= named <= modules


def test_layout_of_repository() -> None:
    """The layout in CONTRIBUTING has every folder of the repository."""
    shown = set(re.findall(r"^(\w+)/  +\S", section(CONTRIBUTING, "## Layout"), re.MULTILINE))
    tests = {"unit_tests", "integration_tests"}
    others = {"live_checks", "benchmarks", "scripts", "docs", "dbt"}

    assert shown == {PACKAGE.name, "sandbox", *tests, *others}
    assert all((ROOT / name).is_dir() for name in shown)


@pytest.mark.parametrize("name", TEXTS)
def test_links(name: str) -> None:
    """Each file and heading that a text refers to exists."""
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name])
    named = re.findall(
        r"(?:scripts|benchmarks|unit_tests|integration_tests|docs|\.github/workflows)/\w+\.\w+",
        TEXTS[name],
    )

    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = ((ROOT / name).parent / path) if path else ROOT / name
        assert target.exists(), link
        anchors = {
            re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")
            for heading in (headings(target.read_text(encoding="utf-8")) if anchor else [])
        }
        assert not anchor or anchor in anchors, link
    for path in named:
        assert (ROOT / path).exists(), path
