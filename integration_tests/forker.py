"""Runs the command in real processes that start at once.

The package is imported a single time; each line on stdin, `{"argv": […], "out": path}`, then forks
a process that runs the command with its stdout in that file. The answer is its process ID, and to
the line `{"wait": pid}` its exit code (negative: the signal that ended it).
"""

import json
import os
import sys

from source_truto_segments import checkpoints
from source_truto_segments.run import run

# Every step writes its state: what is lost by a kill is then what the design loses, not the clock.
checkpoints.CHECKPOINT_SECONDS = 0.0
checkpoints.ACCOUNTS_A_SECOND = 1e9


def child(argv: list[str], out: str) -> None:
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
    code = 1
    try:
        run(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                child(order["argv"], order["out"])
        print(answer, flush=True)


if __name__ == "__main__":
    main()
