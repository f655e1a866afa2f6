"""Run the command in real processes, and read their output."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from integration_tests.support import Result
from sandbox.protocol import messages


class Processes:
    """Real processes of the command, which start at once."""

    def __init__(self) -> None:
        self._forker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "integration_tests.forker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def start(
        self, argv: list[str], out: Path, *, skip_waits: bool = False, stdout: str = ""
    ) -> int:
        """Start a process and return its ID. It can skip all waits except those for responses.

        Its stdout can be `unbuffered`, `nonblocking` or `closed`. Its stderr goes to a file beside
        `out`, with the suffix `.err`.
        """
        return self._order(
            {"argv": argv, "out": str(out), "skip_waits": skip_waits, "stdout": stdout}
        )

    def run(self, *argv: str, out: Path) -> Result:
        """Run a command until it ends, and return its messages."""
        code = self.wait(self.start(list(argv), out))
        return replace(result_of(out), exit_code=code)

    def wait(self, pid: int, seconds: float = 60.0) -> int:
        """Wait for a process to end, and return its exit code.

        A negative code is the signal that ended the process: SIGABRT if it did not end in time.
        """
        return self._order({"wait": pid, "seconds": seconds})

    def close(self) -> None:
        assert self._forker.stdin
        assert self._forker.stdout
        self._forker.stdin.close()
        self._forker.wait(10)
        self._forker.stdout.close()

    def _order(self, order: dict[str, Any]) -> int:
        assert self._forker.stdin
        assert self._forker.stdout
        self._forker.stdin.write(json.dumps(order) + "\n")
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())


def result_of(out: Path) -> Result:
    """Return the messages that were written, except for a last line that a kill has cut."""
    return Result(messages(out.read_bytes().rpartition(b"\n")[0] if out.exists() else b""))
