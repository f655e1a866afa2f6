"""Runs the command in real processes that start at once.

The package is imported a single time; each line on stdin, `{"argv": […], "out": path, …}`, then
forks a process that runs the command with its stdout in that file; `"stdout"` can make it
unbuffered, nonblocking or closed. The reply is its process ID, and
to the line `{"wait": pid, "seconds": …}` its exit code (negative: the signal that ended it).
"""

import faulthandler
import functools
import io
import json
import os
import signal
import sys
import time
import traceback

from integration_tests.support import FakeClock
from source_truto_segments import run as command
from source_truto_segments.sync import sync
from source_truto_segments.truto import transport

# Seconds to connect, and without a byte of the response, where waits are skipped.
SHORT_TIMEOUT = (5.0, 0.5)


def child(argv: list[str], out: str, stdout: str, *, skip_waits: bool) -> None:
    for number, path in ((1, out), (2, f"{out}.err")):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        # As a pipe from a platform: no other descriptor keeps it open.
        os.close(opened)
    faulthandler.enable()
    if stdout == "unbuffered":
        # As with PYTHONUNBUFFERED=1.
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        vars(sys)["__stdout__"] = sys.stdout
    if stdout == "nonblocking":
        os.set_blocking(1, False)
    if stdout == "closed":
        os.close(1)
        vars(sys).update(stdout=None, __stdout__=None)
    if skip_waits:
        transport.TIMEOUT = SHORT_TIMEOUT
        vars(command)["BatchSource"] = functools.partial(command.BatchSource, FakeClock())
    code = 1
    try:
        command.run(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception:  # noqa: BLE001 - for whoever reads the test's output
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            # faulthandler then writes where each thread hangs.
            os.kill(pid, signal.SIGABRT)
            deadline = float("inf")
        time.sleep(0.002)


def main() -> None:
    # Each event writes its state: a kill then loses what the design loses, not what the clock does.
    sync.CHECKPOINT_SECONDS = 0.0
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            reply = wait(order["wait"], order["seconds"])
        else:
            reply = os.fork()
            if reply == 0:
                child(order["argv"], order["out"], order["stdout"], skip_waits=order["skip_waits"])
        print(reply, flush=True)


if __name__ == "__main__":
    main()
