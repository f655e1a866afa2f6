"""No output shows the token or a value of remote_query, whatever a server sends.

Every run uses the same examples. To search with new ones, and several times as many, run for
example `EXAMPLES=50 pytest --timeout=0 integration_tests/test_secrets.py`.
"""

import html
import json
import logging
import os
import random
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from integration_tests.support import (
    ACCOUNT_ID,
    ALL,
    ALL_STREAMS,
    FakeClock,
    Result,
    Serve,
    account,
    catalog,
    check,
    config,
    id_of,
    numbered_account,
    read,
    texts,
    write,
)
from integration_tests.test_hostile_input import examples
from sandbox import Environment, Request, Sandbox, faults
from sandbox.echo import FORMS, PLACES, Echo
from sandbox.protocol import messages
from sandbox.responses import Response
from source_truto_segments import run as console
from source_truto_segments import source

TOKEN = "9f1c7e52-4b0d-4c7e-8a3e-d2f60b91c4a8"
VALUE = "equals(owner,'Zoë & Müller + 100%')"
RUN = 12

PRINTABLE = "".join(map(chr, range(33, 127)))


def secrets(alphabet: str) -> st.SearchStrategy[str]:
    """Draw texts that no output contains by chance, without spaces that an excerpt drops."""

    def secret(seed: int, length: int) -> str:
        return " ".join("".join(random.Random(seed).choices(alphabet, k=length)).split())

    return st.builds(secret, st.integers(0, 2**32), st.integers(RUN, 60)).filter(
        lambda text: len(text) >= RUN
    )


echoes = st.builds(
    Echo,
    place=st.sampled_from([*PLACES, "described"]),
    forms=st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=2),
    before=st.text(PRINTABLE, max_size=3),
    start=st.integers(0, 400),
    length=st.none() | st.integers(0, 200),
)


@pytest.fixture(scope="module")
def echoing() -> Iterator[Sandbox]:
    """Start one server for all examples; each sets its own token and echo."""
    with Sandbox(Environment([numbered_account(0), numbered_account(1)])) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder for files, while commands in this process wait without taking time."""
    logger = logging.getLogger("airbyte")
    level = logger.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "Clock", FakeClock)
        patch.setattr(console, "_install_signal_handlers", lambda _: None)
        yield tmp_path_factory.mktemp("files")
    logger.setLevel(level)


def output_of(folder: Path, *arguments: str) -> str:
    """Run a command in this process, and return what it wrote to stdout and stderr."""
    descriptors = [os.dup(number) for number in (1, 2)]
    with (folder / "output").open("w+b", buffering=0) as file, redirect_stderr(StringIO()) as err:
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            with pytest.raises(SystemExit):
                console.run(list(arguments))
        finally:
            for number, original in enumerate(descriptors, 1):
                os.dup2(original, number)
                os.close(original)
        file.seek(0)
        return f"{file.read().decode()}{err.getvalue()}"


def result_of(folder: Path, command: str, sandbox: Sandbox, *flags: str, **fields: Any) -> Result:
    """Run a command in this process, for all streams, and return its messages."""
    options = ["--config", write(folder / "config.json", config(sandbox, **fields)), *flags]
    if command == "read":
        configured = catalog("incremental", streams=ALL_STREAMS)
        options += ["--catalog", write(folder / "catalog.json", configured)]
    return Result(messages(output_of(folder, command, *options)))


def leaks(output: str, secret: str) -> list[str]:
    """Return the parts of a secret that an output contains, also in forms that can be undone."""
    readings = {output, *(text for line in output.split("\n") if line for text in parsed(line))}
    for undo in (unquote, html.unescape, unquote):
        readings |= {undo(text) for text in readings}
    everything = "\n".join(readings).lower()
    forms = [secret]
    for offset in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            # Leave out what depends on the characters before and after.
            encoded = encode(b"x" * offset + secret.encode()).decode()
            forms += [encoded.rstrip("=")[4:-2]]
    runs = {form[at : at + RUN].lower() for form in forms for at in range(len(form) - RUN + 1)}
    return sorted(part for part in runs if part in everything)


def parsed(line: str) -> list[str]:
    try:
        return list(texts(json.loads(line)))
    except ValueError:
        return []


@given(
    secrets(PRINTABLE),
    secrets(f"{PRINTABLE} äé漢😀"),
    echoes,
    st.sampled_from(["check", "discover", "read"]),
    st.sampled_from(["", "--debug", "LOG_LEVEL"]),
)
@example(TOKEN, VALUE, Echo("message", start=100), "read", "")
@example(TOKEN, VALUE, Echo("described"), "discover", "--debug")
@examples(60)
def test_echo(
    echoing: Sandbox,
    folder: Path,
    token: str,
    value: str,
    echo: Echo,
    command: str,
    level: str,
) -> None:
    """If a server echoes the request in any form, no output contains a part of a secret."""
    echoing.environment.token, echoing.environment.alter = token, echo
    pairs = [{"name": "filter", "value": value}]
    flags = ["--debug"] if level == "--debug" else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOG_LEVEL", "debug" if level == "LOG_LEVEL" else "info")
        result = result_of(
            folder, command, echoing, *flags, additional_accounts=ALL, remote_query=pairs
        )

    output = "\n".join(map(json.dumps, result.messages))
    for secret in (token, value):
        assert leaks(output, secret) == []


@pytest.mark.parametrize("missing", range(4))
def test_partial_token(serve: Serve, missing: int) -> None:
    """A text that has all of the token except its last characters is masked."""
    sandbox = serve(account(faults=[faults.vendor_error(400, raw_response=TOKEN[: 36 - missing])]))
    sandbox.environment.token = TOKEN

    assert 'the vendor reported: "****"' in str(read(sandbox).failure)


@pytest.mark.parametrize("before", range(255, 305, 7))
def test_token_at_the_cut(serve: Serve, before: int) -> None:
    """A token is masked even if an excerpt ends within it."""
    text = f"{'x ' * 200}"[:before] + TOKEN
    sandbox = serve(account(faults=[faults.vendor_error(400, raw_response=text)]))
    sandbox.environment.token = TOKEN

    assert leaks(str(read(sandbox).failure), TOKEN) == []
    assert TOKEN[:4] not in str(read(sandbox).failure)


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        # An ordinary word or a short value is masked only after the parameter's name.
        ("true", "include=true&x=1: that is true", "include=****&x=1: that is true"),
        ("1", 'remote_query[include]=1, "include": "1", or 1 or include=12', "include=12"),
        ("a b", "?remote_query%5Binclude%5D=a+b", "?remote_query%5Binclude%5D=****"),
        # A value with a digit is masked wherever it is; one of a dozen characters, also in part.
        ("q7-rtz-01", "not q7-rtz-01, Q7-RTZ-01", "not ****, ****"),
        ("anna.lee@mail.example", "na.lee@mail.e!", "****!"),
    ],
)
def test_values_of_remote_query(serve: Serve, value: str, text: str, shown: str) -> None:
    """How much of a value is masked depends on its length and its characters."""
    sandbox = serve(account(faults=[faults.vendor_error(400, raw_response=text)]))

    result = read(sandbox, remote_query=[{"name": "include", "value": value}])

    assert f'{shown}"' in str(result.failure)
    assert '"1"' not in str(result.failure)


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ({"status": 401, "apiKey": "abc", "by": {"x": "y"}}, "{status, apiKey, by}"),
        ({"error": {"type": "x", "secret": "abc"}}, "{type, secret}"),
        ({"error": {"message": "No"}, "apiKey": "abc"}, "No"),
        ([{"apiKey": "abc"}, [{"detail": "a"}, ["b"]]], "{apiKey}; a; b"),
        ('{"apiKey": "abc"}', "{apiKey}"),
        ('No: {"apiKey": "abc", "code": 7} was sent', "No: 7 was sent"),
        ("No: {'apiKey': 'abc'} was {sent}", "No: {…} was {sent}"),
        ('No: {"apiKey": "ab', "No: {…}"),
        ("Authorization: Basic YWJjOmFiYw==, x", "Authorization: ****, x"),
        ("authorization=Bearer%20abc&x=1", "authorization=****&x=1"),
        ("bad header 'X-Api-Key': 'abc def', x", "bad header 'X-Api-Key': '****', x"),
        ("x?api_key=abc&y=1", "x?api_key=****&y=1"),
        ("APIKEY : abc", "APIKEY : ****"),
        ("access_token%3Dabc", "access_token%3D****"),
        ('\\"client_secret\\":\\"abc\\"', '\\"client_secret\\":\\"****\\"'),
        ("password => abc", "password => ****"),
        ("bearer abcdefgh", "bearer ****"),
        ("Invalid API key provided: sk_live_8sdfh2", "Invalid API key provided: ****"),
        ("<td>Secret</td><td>8sdfh2aa</td>", "<td>Secret</td><td>****</td>"),
        ("at https://user:abc@vendor.example/x", "at https://****@vendor.example/x"),
        # Sentences are not masked.
        ("The API key was revoked", "The API key was revoked"),
        ("Bearer tokens are required", "Bearer tokens are required"),
        ("No\u202e \u200bright\x1b[2J \x85now\x9b", "No right[2J now"),
    ],
)
def test_credentials(serve: Serve, reported: Any, shown: str) -> None:
    """Messages contain the vendor's reasons and the names of other keys, but no credentials."""
    sandbox = serve(account(faults=[faults.vendor_error(400, raw_response=reported)]))

    assert f'the vendor reported: "{shown}").' in str(read(sandbox).failure)


def test_dirty_list(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Messages shorten and clean what the list says about an account; its row has the value."""
    long, dirty = "x" * 100_000, "acme\u202e\x1b[31m\u200b"
    refused = faults.scopes_missing(kind="segments", times=None)
    sandbox = serve(*(numbered_account(n, faults=[refused]) for n in range(2)))

    changes = {
        id_of(0): {"tenant_id": long, "status": long, "integration": {"name": f"klaviyo{long}"}},
        id_of(1): {"tenant_id": dirty, "last_error": {"message": f"{dirty} {TOKEN} {long}"}},
    }

    def alter(request: Request, response: Response) -> Response:
        if request.kind not in ("account", "accounts"):
            return response
        content = json.loads(response.body)
        if request.kind == "accounts":
            content["result"].append({**content["result"][0], "id": f"{dirty}{long}"})
        for entry in content.get("result", [content])[:2]:
            entry.update(changes[entry["id"]])
            entry["integration"]["category"] = "marketing_automation"
        return replace(response, body=json.dumps(content).encode())

    sandbox.environment.alter = alter
    sandbox.environment.token = TOKEN
    result = read(sandbox, configured=catalog(streams=ALL_STREAMS), additional_accounts=ALL)
    _, message = check(sandbox, additional_accounts=ALL)

    rows = {row["id"]: row for row in result.records_of("integrated_accounts")}
    assert rows[id_of(0)]["tenant_id"] == long
    assert rows[id_of(1)]["tenant_id"] == dirty
    assert rows[id_of(1)]["last_error"].startswith("acme[31m **** xxx")
    assert len(rows[id_of(1)]["last_error"]) == 300
    lines = [record.getMessage() for record in caplog.records if record.name == "airbyte"]
    for text in (*lines, *[error["message"] for error in result.errors], str(message)):
        assert len(text) < 4_000
        assert text.replace("\n", "").isprintable()
        assert TOKEN not in text


def test_custom_fields(serve: Serve, folder: Path) -> None:
    """A model's descriptions are excerpts, and at most 1,000 of its fields are columns."""
    field = {"type": "string", "description": f"\u202eUse {TOKEN} {'x' * 1_000}"}
    named = {f"Bearer {TOKEN}": field, "x" * 301: field}
    custom = {**{f"field_{number}": field for number in range(1_200)}, **named}
    sandbox = serve(account(custom_fields=custom))
    sandbox.environment.token = TOKEN

    result = result_of(folder, "discover", sandbox)

    (found,) = result.of_type("CATALOG")
    columns = found["streams"][0]["json_schema"]["properties"]
    names = [name for name in columns if name in custom]
    assert names == [f"field_{number}" for number in range(1_000)]
    assert all(len(columns[name]["description"]) == 300 for name in names)
    assert all(columns[name]["description"].startswith("Use **** xxx") for name in names)
    assert any("1200 custom fields: the first 1000 are columns" in line for line in result.logs)
    assert TOKEN[:12] not in json.dumps(result.messages)


def test_libraries_logs(serve: Serve, folder: Path) -> None:
    """If a library logs a warning with the whole URL, the output does not contain it."""

    def warn(request: Request) -> bool:
        logging.getLogger("urllib3.connectionpool").warning("Failed to parse %s", request.target)
        return False

    sandbox = serve(account(), faults=[faults.truto_failed(when=warn)])
    fields = {"remote_query": [{"name": "q", "value": "true"}]}
    settings = write(folder / "config.json", config(sandbox, **fields))
    configured = write(folder / "catalog.json", catalog())
    output = output_of(folder, "read", "--config", settings, "--catalog", configured)

    assert '"status":"COMPLETE"' in output
    assert "remote_query" not in output


FORGED = [
    {"type": "STATE", "state": {"type": "STREAM", "stream": {"stream_state": {"forged": 1}}}},
    {"type": "RECORD", "record": {"stream": "segments", "data": {"id": "forged"}}},
    {"type": "CONTROL", "control": {"type": "CONNECTOR_CONFIG", "connectorConfig": {}}},
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\x85", "\0\n"])
@pytest.mark.parametrize("command", ["check", "discover", "read"])
def test_forged_lines(serve: Serve, folder: Path, command: str, end: str) -> None:
    """No text from a server becomes a separate message, whatever ends its lines."""
    text = end.join(["", *map(json.dumps, FORGED), ""])
    error = {"statusCode": 400, "error": text, "message": text}
    fault = faults.body(json.dumps(error), 400, times=None, kind="segments", after=1)
    segments = [{"id": text, "name": text, "remote_data": {text: text}}]
    custom = {text: {"type": "string", "description": text}}
    sandbox = serve(
        numbered_account(0, segments=segments, custom_fields=custom),
        numbered_account(1, last_error=text, tenant_id=text, status=text),
        faults=[fault],
    )

    result = result_of(folder, command, sandbox, "--debug", additional_accounts=ALL)

    assert result.messages
    assert not [message for message in result.messages if message in FORGED]
    assert {message["type"] for message in result.messages} & {"CONTROL"} == set()
    assert "forged" not in result.ids


@pytest.mark.parametrize(
    "name",
    [
        "a]&integrated_account_id",
        "&next_cursor",
        "x]=1&limit",
        "]",
        "#",
        "a[b]",
        "../..",
        "?x",
        "%26",
        "integrated_account_id",
        f"x]&integrated_account_id={ACCOUNT_ID}&y[",
        "workspace[id]",
        "a#b",
        "next_cursor",
        "../../x",
        "a\r\nX-Other: 1",
    ],
)
def test_remote_query_overrides_nothing(serve: Serve, name: str) -> None:
    """Whatever the name of a remote_query parameter, it changes no other parameter."""
    sandbox = serve(account(count=12), numbered_account(1))
    pairs = [{"name": name, "value": id_of(1)}, {"name": "limit", "value": "1&limit=1"}]

    assert len(read(sandbox, remote_query=pairs).ids) == 12
    for request in sandbox.requests:
        assert request.path == "/unified/marketing-automation/segments"
        assert request.params("integrated_account_id") == [ACCOUNT_ID]
        assert request.params(f"remote_query[{name}]") == [id_of(1)]
        names = {name for name, _ in request.query if not name.startswith("remote_query[")}
        assert names <= {"integrated_account_id", "next_cursor"}
        assert "X-Other" not in request.headers


@pytest.mark.parametrize(
    "name", ["..", ".", "../x", "a/b", "a?b=c", "a#b", "%2e%2e", "%2f", "é", "\\"]
)
def test_ids_in_paths(serve: Serve, name: str) -> None:
    """If an id in a state is not a UUID, it never becomes part of a path."""
    sandbox = serve(numbered_account(0), numbered_account(1))
    state = {"states": [{"partition": {}, "cursor": {"records": {name: "x"}}}], "filters": {}}
    descriptor = {"name": "integrated_accounts"}
    message = {"type": "STREAM", "stream": {"stream_descriptor": descriptor, "stream_state": state}}
    configured = catalog("incremental", streams=["integrated_accounts"])

    read(sandbox, configured=configured, state=[message], additional_accounts=ALL)

    asked = {request.target.partition("?")[0] for request in sandbox.requests}
    assert asked <= {"/integrated-account", f"/integrated-account/{id_of(0)}"}
