"""The documentation tells what the code does: every field, column, message, module and version."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from integration_tests.support import meanings
from source_truto_segments import errors
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.errors import Meaning
from source_truto_segments.records import segments_schema
from source_truto_segments.state import FullRefreshState, IncrementalState

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "source_truto_segments"
VERSION = (PACKAGE / "VERSION").read_text().strip()

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "truto-segments.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
TEXTS = {"README.md": README, "docs/truto-segments.md": PAGE}

# What Airbyte requires of the page of a connector, in this order.
HEADINGS = [
    "# Truto Segments",
    "## Prerequisites",
    "## Setup guide",
    "## Set up Truto Segments",
    "### For Airbyte Cloud:",
    "### For Airbyte Open Source:",
    "## Supported sync modes",
    "## Supported Streams",
    "## IP allow list",
    "### Performance considerations",
    "## Data type map",
    "## Limitations & Troubleshooting",
    "## Changelog",
]

SPECIFICATION = json.loads((PACKAGE / "spec.json").read_text())["connectionSpecification"]

CONFIG: dict[str, Any] = {
    "token": "t0ken",
    "integrated_account_id": "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65",
}
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


def headings(page: str) -> list[str]:
    without_code = re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ .*$", without_code, re.MULTILINE)


def section(page: str, heading: str) -> str:
    _, _, rest = page.partition(f"\n{heading}\n")
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(page: str) -> list[list[str]]:
    """The cells of each row of each table."""
    lines = re.findall(r"^\| (.*) \|$", page, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name and the title of each field of the form, at any depth."""
    for name, field in schema.get("properties", {}).items():
        if "title" in field:
            yield name, field["title"]
        yield from fields(field)
    for form in schema.get("oneOf", []):
        yield from fields(form)
    if "items" in schema:
        yield from fields(schema["items"])


def forms(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The mode and the title of each form of a field that has several."""
    for field in schema.get("properties", {}).values():
        for form in field.get("oneOf", []):
            yield form["properties"]["mode"]["const"], form["title"]


def column_type(schema: Mapping[str, Any]) -> str:
    if schema.get("airbyte_type") == "timestamp_with_timezone":
        return "timestamp with time zone"
    types = schema["type"]
    (name,) = {*([types] if isinstance(types, str) else types)} - {"null"}
    return str(name)


FIELDS = list(fields(SPECIFICATION))
MEANINGS = meanings()


def test_given_the_page_when_its_headings_are_read_then_they_are_airbytes_in_order() -> None:
    assert headings(PAGE) == HEADINGS


def test_given_the_required_fields_when_prerequisites_are_read_then_each_title_is_there() -> None:
    prerequisites = section(PAGE, "## Prerequisites")
    for name in SPECIFICATION["required"]:
        assert SPECIFICATION["properties"][name]["title"] in prerequisites


def test_given_the_form_when_its_fields_are_listed_then_those_within_others_are_among_them() -> (
    None
):
    assert set(SPECIFICATION["properties"]) < {name for name, _ in FIELDS}
    assert {"ids", "integrations", "tenant_ids", "value"} < {name for name, _ in FIELDS}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("name", "title"), FIELDS)
def test_given_a_field_of_the_form_when_a_text_is_read_then_it_has_its_name_and_title(
    name: str, title: str, text: str
) -> None:
    lines = [line for line in TEXTS[text].splitlines() if line.startswith("|")]

    named = [line for line in lines if f"`{name}`" in line or f'"{name}": ' in line]
    assert any(title in line for line in named)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("mode", "title"), list(forms(SPECIFICATION)))
def test_given_a_form_of_a_field_when_a_text_is_read_then_it_has_its_mode_and_title(
    mode: str, title: str, text: str
) -> None:
    (line,) = [line for line in TEXTS[text].splitlines() if "| `additional_accounts` |" in line]

    assert f"`{mode}`" in line or f'"{mode}"' in line
    assert title in line


def test_given_the_defaults_and_bounds_when_texts_are_read_then_they_are_told() -> None:
    workers = SPECIFICATION["properties"]["num_workers"]
    bounds = f"{workers['minimum']} to {workers['maximum']}, by default {workers['default']}"
    for text in TEXTS.values():
        assert bounds in text
        assert SPECIFICATION["properties"]["api_url"]["default"] in text


@pytest.mark.parametrize("what", sorted({meaning.what for meaning in MEANINGS}))
def test_given_a_meaning_when_the_page_is_read_then_it_has_it(what: str) -> None:
    messages = section(PAGE, "## Limitations & Troubleshooting")

    cells = [message for row in rows(messages) for message in row[0].split("; ")]
    assert what in cells


@pytest.mark.parametrize("meaning", MEANINGS, ids=lambda meaning: meaning.what)
def test_given_a_meaning_when_its_row_is_read_then_type_and_retry_are_right(
    meaning: Meaning,
) -> None:
    (row,) = [row for row in rows(PAGE) if meaning.what in row[0].split("; ")]

    if len(row) == len(["message", "status", "what to do"]):
        assert meaning.failure_type.value == "config_error"
        assert meaning.action is errors.Action.FAIL
        return
    _, kind, tried_again, _ = row
    assert kind.split(",")[0] == meaning.failure_type.value.removesuffix("_error")
    assert ("whole sync" in kind) is (meaning.scope is errors.Scope.SYNC)
    assert (tried_again == "yes") is (meaning.action is not errors.Action.FAIL)


@pytest.mark.parametrize("status", errors.NOT_ACTIVE)
def test_given_a_status_of_an_account_when_the_page_is_read_then_it_stands_with_its_message(
    status: str,
) -> None:
    (row,) = [row for row in rows(PAGE) if row[0] == errors.NOT_ACTIVE[status].what]

    assert row[1] == f"`{status}`"


@pytest.mark.parametrize(
    "given",
    [
        {"token": "a b"},
        {"api_url": "truto"},
        {"api_url": "https://a:b@truto"},
        {"api_url": "http://truto.example"},
        {"additional_accounts": {"mode": "some"}},
    ],
)
def test_given_a_mistake_in_the_configuration_when_the_page_is_read_then_it_has_the_message(
    given: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError) as mistake:
        Config.parse({**CONFIG, **given})

    sentence = re.split(r"(?<=\.) ", str(mistake.value))[0]
    assert sentence in PAGE


@pytest.mark.parametrize(
    "blob",
    [
        {"states": "x"},
        {"states": [{}]},
        {"states": [{"partition": {}, "cursor": {}}]},
        {"states": [{"partition": {"integrated_account_id": "a"}, "cursor": {"next_cursor": 5}}]},
        {"states": [{"partition": {"integrated_account_id": "a"}, "cursor": {"updated_at": "x"}}]},
        {"states": [], "started_at": "x"},
    ],
)
def test_given_a_state_of_another_form_when_the_page_is_read_then_it_has_the_message(
    blob: dict[str, Any],
) -> None:
    mistakes = []
    for kind in (FullRefreshState, IncrementalState):
        try:
            kind.load(blob, {}, NOW)
        except ConfigError as mistake:
            mistakes.append(str(mistake))

    assert mistakes
    for message in mistakes:
        head, _, why = message.partition(": ")
        assert f"{head}: …" in PAGE
        assert why.split(". ")[0] in PAGE


@pytest.mark.parametrize(("name", "schema"), segments_schema()["properties"].items())
def test_given_a_column_when_the_page_is_read_then_it_has_its_type(
    name: str, schema: dict[str, Any]
) -> None:
    (row,) = [row for row in rows(section(PAGE, "## Supported Streams")) if row[0] == f"`{name}`"]

    assert row[1] == column_type(schema)


def test_given_the_columns_when_the_readme_is_read_then_it_names_each() -> None:
    for name in segments_schema()["properties"]:
        assert f"`{name}`" in README


def test_given_the_version_when_the_changelogs_are_read_then_it_is_their_first() -> None:
    versions = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", CHANGELOG, re.MULTILINE
    )
    of_page = [row for row in rows(section(PAGE, "## Changelog")) if row[0][0].isdigit()]

    assert versions[0][0] == VERSION
    assert [(row[0], row[1]) for row in of_page] == versions
    assert "<details>" in section(PAGE, "## Changelog")


@pytest.mark.parametrize("text", TEXTS)
def test_given_the_version_when_an_image_is_named_then_it_has_that_tag(text: str) -> None:
    tags = re.findall(r"airbyte/source-truto-segments:(\S+)", TEXTS[text])

    assert tags
    assert set(tags) == {VERSION}


def test_given_the_package_when_the_readme_shows_the_layout_then_every_module_is_in_it() -> None:
    layout = section(README, "## Development")
    shown = set(re.findall(r"^  (\w+\.py) ", layout, re.MULTILINE))

    assert shown == {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}


@pytest.mark.parametrize("folder", ["benchmarks", "scripts", "docs", "sandbox"])
def test_given_a_folder_when_the_readme_shows_the_layout_then_it_is_in_it(folder: str) -> None:
    assert f"\n{folder}/ " in section(README, "## Development")


@pytest.mark.parametrize("text", [*TEXTS, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_given_a_text_when_it_points_to_a_file_then_the_file_is_there(text: str) -> None:
    content = (ROOT / text).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", content)
    named = re.findall(
        r"(?:scripts|benchmarks|unit_tests|integration_tests)/\w+\.(?:sh|py)", content
    )

    for link in links:
        if "://" not in link:
            assert ((ROOT / text).parent / link).exists(), link
    for path in named:
        assert (ROOT / path).exists(), path


def test_given_the_records_of_the_readme_when_shown_then_they_are_one_line_of_json_each() -> None:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)

    assert blocks
    for block in blocks:
        assert isinstance(json.loads(block), dict)
