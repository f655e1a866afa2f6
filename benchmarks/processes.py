"""Processes: a command that is measured, and a server that says what came."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent

_LONGEST_SECONDS = 900.0
_BYTES_A_KILOBYTE = 1024


class NotWholeError(Exception):
    """A read that did not come to what it has to; there are no figures of it."""


@dataclass(frozen=True)
class Run:
    """One command, over.

    Attributes:
        began: When it was started, in seconds since 1970.
        seconds: From the start of its process to its end.
        cpu_seconds: The processor time that it used.
        peak_bytes: The most memory that it held (its resident set).
        exit_code: Its exit code.
        output: The file that has what it printed.
        said: The end of what it wrote to the standard error.
    """

    began: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    exit_code: int
    output: Path
    said: str


def run(
    command: Sequence[str | Path],
    folder: Path,
    longest: float = _LONGEST_SECONDS,
    variables: Mapping[str, str] | None = None,
) -> Run:
    """Runs a command to its end; its output goes into a file, which costs its reader no time.

    Args:
        command: The command and its arguments.
        folder: Where it runs and where its output goes.
        longest: Seconds after which it is killed.
        variables: Environment variables besides this process's own.
    """
    output, errors = folder / "output.jsonl", folder / "errors.txt"
    with output.open("wb") as out, errors.open("wb") as err:
        began, started = time.time(), time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            stdout=out,
            stderr=err,
            env={**local_environment(), **(variables or {})},
        )
        watch = threading.Timer(longest, os.kill, (process.pid, signal.SIGKILL))
        watch.start()
        try:
            # Linux counts the memory of whoever started a process as the least of its peak. So
            # nothing large is imported or kept here while a read is measured.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            watch.cancel()
        seconds = time.monotonic() - started
    # It is no longer there to be waited for.
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else _BYTES_A_KILOBYTE
    return Run(
        began=began,
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * unit,
        exit_code=process.returncode,
        output=output,
        said=errors.read_text(errors="replace").strip()[-1_000:],
    )


class Server:
    """The process of a server.

    Attributes:
        described: What it said when it listened: its address, its token, what it has.
        counted: What it said when it was stopped: how many requests came.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.described = self._line()
        self.counted: dict[str, Any] = {}

    def stop(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self.counted = self._line()

    def _line(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise NotWholeError("The server ended before its time.")
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def server(module: str, *arguments: str) -> Iterator[Server]:
    """Starts a server of this folder, and ends it behind the block, whatever happens in it."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()


def local_environment() -> dict[str, str]:
    """The environment for a process that asks this machine: a proxy is for others."""
    local = {
        name: ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
        for name in ("no_proxy", "NO_PROXY")
    }
    return {**os.environ, **local}


def write_json(path: Path, content: Any) -> None:
    """Writes a file for a command to read."""
    path.write_text(json.dumps(content), encoding="utf-8")
