"""The environment of `truto-python-sdk`, which needs another Python than the connector."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.1.6"
PACKAGE = f"truto-python-sdk=={VERSION}"

_FOLDER = ROOT / ".venv-sdk"
_PYTHON = _FOLDER / "bin" / "python"
_IS_FIT = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] < (3, 12))"
_IS_THERE = (
    "import sys, importlib.metadata, truto_python_sdk; "
    f"sys.exit(importlib.metadata.version('truto-python-sdk') != '{VERSION}')"
)


class NoSdkError(Exception):
    """The SDK cannot be run; its text says why, in a few words."""


def prepare(given: str | None) -> Path:
    """Makes the environment, or takes the one that is there; returns its Python.

    Args:
        given: The Python to make it with; None looks for one.

    Raises:
        NoSdkError: If no Python fits, or if the package cannot be installed.
    """
    if given is None and _runs(_PYTHON, _IS_THERE):
        return _PYTHON
    python = next((each for each in _candidates(given) if _runs(each, _IS_FIT)), None)
    if python is None:
        raise NoSdkError("no Python 3.12")
    print(f"Making .venv-sdk with {PACKAGE} ...", flush=True)
    try:
        _make(python)
    except BaseException:
        # Half an environment would be taken for a whole one.
        shutil.rmtree(_FOLDER, ignore_errors=True)
        raise
    return _PYTHON


def _candidates(given: str | None) -> Iterator[str | Path]:
    if given is not None:
        yield given
        return
    if on_path := shutil.which("python3.12"):
        yield on_path
    yield from sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python3.12"), reverse=True)


def _runs(python: str | Path, code: str) -> bool:
    """Whether a Python runs some code well; a name on the path can be one that does not run."""
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _make(python: str | Path) -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    commands: list[list[str | Path]] = [
        [python, "-m", "venv", _FOLDER],
        [_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.stderr.write(done.stderr[-1_000:])
            raise NoSdkError(f"{PACKAGE} could not be installed")
