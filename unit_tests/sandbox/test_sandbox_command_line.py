from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

import sandbox
from sandbox import DEFAULT_TOKEN, demo_environment
from sandbox.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(sandbox.__file__).parent.parent
COMMAND = [sys.executable, "-m", "sandbox"]


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def head(process: subprocess.Popen[str], until: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or until not in lines[-1]:
        line = process.stdout.readline()
        assert line, "ended early"
        lines.append(line.rstrip("\n"))
    return lines


def accounts_status(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{url}/integrated-account", headers=headers, timeout=5).status_code


def failed(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_demo_until_signal(ending: signal.Signals) -> None:
    """Without arguments, the command serves the demo until SIGINT or SIGTERM."""
    with running() as process:
        lines = head(process, "Ctrl-C")
        url, token = lines[0].split()[1], lines[1].split()[1]
        assert token == DEFAULT_TOKEN
        assert accounts_status(url, token) == 200
        table = "\n".join(lines)
        for account in demo_environment().accounts:
            assert account.id in table
            assert account.vendor in table
        process.send_signal(ending)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")


def test_json_description() -> None:
    """With --json, the command describes everything in one line."""
    with running("--json", "--accounts", "20", "--segments", "4", "--token", "t") as process:
        (line,) = head(process, "}")
        description = json.loads(line)
        assert accounts_status(description["url"], "t") == 200
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    assert rest == ""
    assert description["token"] == "t"
    assert len(description["accounts"]) == 20
    assert set(description["accounts"][0]) == {"id", "vendor", "tenant_id", "status", "segments"}
    assert description["accounts"][0]["segments"] == 4


def test_port_in_use() -> None:
    """The command reports a port that is in use in one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = failed("--port", str(port))
    assert code == 1
    assert errors == f"sandbox: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "-1"],
        ["--accounts", "0"],
        ["--accounts", "-5"],
        ["--segments", "5"],
        ["--latency", "-1"],
        ["--latency", "nan"],
        ["--latency", "soon"],
        ["--unknown"],
    ],
)
def test_bad_option(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The command reports a bad option in one sentence."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    output = capsys.readouterr()
    assert ended.value.code == 2
    assert output.out == ""
    assert output.err.startswith("sandbox: ")
    assert output.err.count("\n") == 1
