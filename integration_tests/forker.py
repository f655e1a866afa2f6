"""Run the command in real processes that start at once.

This script imports the package only once. For each line on stdin,
`{"argv": […], "out": path, …}`, it forks a process that runs the command and writes its stdout to
that file; `"stdout"` can make it unbuffered, nonblocking or closed. The reply is the process ID.
The reply to the line `{"wait": pid, "seconds": …}` is the exit code of the process (if negative,
the signal that ended it).
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

# The timeouts if waits are skipped: seconds to connect, and without a byte of the response.
SHORT_TIMEOUT = (5.0, 0.5)


def child(argv: list[str], out: str, stdout: str, *, skip_waits: bool) -> None:
    for number, path in ((1, out), (2, f"{out}.err")):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        # Like a platform's pipe, the file is kept open by no other descriptor.
        os.close(opened)
    faulthandler.enable()
    if stdout == "unbuffered":
        # This is what PYTHONUNBUFFERED=1 does.
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
            # On this signal, faulthandler prints where each thread hangs.
            os.kill(pid, signal.SIGABRT)
            deadline = float("inf")
        time.sleep(0.002)


def main() -> None:
    # Write a state after each event, so that a kill loses only what the design loses, and not what
    # depends on the clock.
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
