"""Run one command, and print what the operating system counted for it as a line of JSON.

On Linux, a command's peak memory is at least the memory of the process that starts it. So this
small process starts it, whatever the benchmark itself has imported.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

_MAX_SECONDS = 1_800
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1_024


def main(output: str, errors: str, *command: str) -> None:
    # Raise on these signals, so that the command is killed as well.
    for signal_number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(signal_number, lambda number, _: sys.exit(128 + number))
    signal.alarm(_MAX_SECONDS)
    with Path(output).open("wb") as out, Path(errors).open("wb") as err:
        started_at, started = time.time(), time.monotonic()
        exit_code = subprocess.call(command, stdout=out, stderr=err)
        seconds = time.monotonic() - started
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "started_at": started_at,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * _MAXRSS_UNIT,
        "exit_code": exit_code,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
