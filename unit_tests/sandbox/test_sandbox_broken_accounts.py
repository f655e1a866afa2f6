"""`python -m sandbox`, for anyone who tries the connector by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sandbox as package
from sandbox import break_account, demo_environment
from sandbox.__main__ import main
from sandbox.presets import BREAKS
from source_truto_segments.config import Config
from unit_tests.sandbox.test_sandbox_command_line import failed, head, running

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Serve


def test_configuration_is_ready(tmp_path: Path) -> None:
    """The table includes config.json as one line, and --config writes the same to a file."""
    path = tmp_path / "config.json"
    with running("--config", str(path), "--break", "brevo=refused") as process:
        lines = head(process, "Ctrl-C")
    (line,) = [line for line in lines if line.startswith("config.json: ")]
    printed = json.loads(line.removeprefix("config.json: "))

    assert printed == json.loads(path.read_text())
    assert Config.parse(printed).account_list is not None
    assert any(line.startswith("brevo") and line.endswith("needs_reauth") for line in lines)


@pytest.mark.parametrize(
    ("how", "statuses", "status"),
    [
        ("refused", [401, 401, 401], "needs_reauth"),
        ("forbidden", [403, 403, 403], "active"),
        ("throttled", [200, 200, 429], "active"),
        ("empty", [200, 200, 200], "active"),
    ],
)
@pytest.mark.parametrize("number", [0, 2])
def test_broken_account(
    serve: Serve,
    how: str,
    statuses: list[int],
    status: str,
    number: int,
) -> None:
    """Each way of breaking an account works, whether it has workspaces or not."""
    accounts = demo_environment().accounts
    account = accounts[number]
    workspace = next(iter(account.workspaces), "")
    break_account(account, how)
    client = serve(*accounts)

    answers = [client.segments(account.id, {"workspace[id]": workspace}) for _ in statuses]
    if how == "empty" and workspace:
        statuses = [404, 404, 404]  # its workspaces were deleted as well
    assert [answer.status_code for answer in answers] == statuses
    assert account.status == status
    assert set(BREAKS) == {"refused", "forbidden", "throttled", "empty"}


@pytest.mark.parametrize(
    "arguments", [["--break", "brevo"], ["--break", "brevo=tired"], ["--break", "nobody=empty"]]
)
def test_invalid_break(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown way to break an account, or an unknown account, is a usage error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("sandbox: argument --break: ")


def test_unwritable_configuration(tmp_path: Path) -> None:
    """If the configuration cannot be written, the command reports that in one line."""
    code, errors = failed("--config", str(tmp_path / "no" / "config.json"))
    assert code == 1
    assert errors.startswith("sandbox: cannot write ")
    assert errors.count("\n") == 1


def test_missing_extra(tmp_path: Path) -> None:
    """Without the packages of the extra, the command reports what to install."""
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('no', name='aiohttp')")
    done = subprocess.run(
        [sys.executable, "-m", "sandbox"],
        cwd=Path(package.__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "sandbox: the package aiohttp is not installed. In the project's folder, "
        "`pip install -e '.[demo]'` installs what the sandbox needs.\n"
    )
