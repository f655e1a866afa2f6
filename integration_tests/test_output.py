"""The output: whatever takes it, no state counts what was not written."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from integration_tests.processes import Processes, result_of
from integration_tests.support import Result, Serve, catalog, config, numbered_account, write
from integration_tests.test_state import assert_no_state_is_ahead
from sandbox import Sandbox, faults
from sandbox.protocol import messages

# Several times what a pipe can hold.
RECORDS = 2_000


def arguments(folder: Path, sandbox: Sandbox) -> list[str]:
    fields = {"additional_accounts": {"mode": "all"}}
    return [
        "read",
        *("--config", write(folder / "config.json", config(sandbox, **fields))),
        *("--catalog", write(folder / "catalog.json", catalog("incremental"))),
    ]


def large(number: int) -> dict[str, object]:
    return {"id": f"s{number}", "name": "ä\u2028" * 30}


@pytest.fixture
def sandbox(serve: Serve) -> Sandbox:
    segments = [large(number) for number in range(RECORDS)]
    accounts = [numbered_account(n, segments=segments, default_page_size=1_000) for n in range(2)]
    return serve(*accounts)


def read_all(descriptor: int, out: Path) -> Result:
    """Read what is left in a pipe, and check that all its lines are complete."""
    with os.fdopen(descriptor, "rb") as pipe:
        content = pipe.read()
    out.write_bytes(content)
    result = result_of(out)
    assert content.endswith(b"\n")
    assert len(result.messages) == content.count(b"\n")
    return result


@pytest.mark.parametrize("stdout", ["", "unbuffered", "nonblocking"])
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGTERM, signal.SIGTERM]],
    ids=["TERM", "INT", "all"],
)
def test_signal_while_full(
    sandbox: Sandbox, processes: Processes, tmp_path: Path, stdout: str, signals: Sequence[int]
) -> None:
    """If a sync is terminated while its pipe is full, its last states count what was written."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    pid = processes.start(arguments(tmp_path, sandbox), pipe, stdout=stdout)
    deadline = time.monotonic() + 20
    while not is_full(reader) and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in signals:
        os.kill(pid, number)
        time.sleep(0.003)
    os.set_blocking(reader, True)

    result = read_all(reader, tmp_path / "out.jsonl")

    assert processes.wait(pid) == 1
    assert_no_state_is_ahead(result)
    assert result.statuses[-1] == "INCOMPLETE"
    assert 0 < len(result.records) < 2 * RECORDS
    assert sum(state["sourceStats"]["recordCount"] for state in result.states) == len(
        result.records
    )
    last = result.last_state[0]["stream"]["stream_state"]["states"]
    counted = sum(len(entry["cursor"]["records"]) for entry in last)
    assert counted == len(result.records)


def is_full(reader: int) -> bool:
    """Return whether a pipe has less than a page of space left."""
    return unread(reader) > 32_768


def unread(reader: int) -> int:
    held = array.array("i", [0])
    fcntl.ioctl(reader, termios.FIONREAD, held)
    return held[0]


def test_second_signal(sandbox: Sandbox, processes: Processes, tmp_path: Path) -> None:
    """A second signal, a second later, ends a sync even if nobody empties its pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    pid = processes.start(arguments(tmp_path, sandbox), pipe)
    while not is_full(reader):
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    time.sleep(1.05)
    os.kill(pid, signal.SIGTERM)

    assert processes.wait(pid, 5) == 128 + signal.SIGTERM
    os.close(reader)


@pytest.mark.parametrize(
    ("stdout", "message"), [("", "No space left on device"), ("closed", "Bad file descriptor")]
)
def test_no_output(
    sandbox: Sandbox, processes: Processes, tmp_path: Path, stdout: str, message: str
) -> None:
    """If the disk is full or stdout is closed, stderr has one sentence and the exit code is 1."""
    out = tmp_path / "out.jsonl"
    out.symlink_to("/dev/full")

    pid = processes.start(arguments(tmp_path, sandbox), out, stdout=stdout)

    assert processes.wait(pid) == 1
    assert Path(f"{out}.err").read_text() == f"The output could not be written: {message}.\n"
    assert len(sandbox.requests) < 10


def test_consumer_gone_during_wait(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """If the consumer leaves while there is nothing to write, the sync ends."""
    waiting = numbered_account(0, faults=[faults.vendor_rate_limited(600)])
    sandbox = serve(waiting)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    pid = processes.start(arguments(tmp_path, sandbox), pipe)
    while not any(request.status == 429 for request in sandbox.requests):
        time.sleep(0.01)
    time.sleep(0.3)
    os.close(reader)

    assert processes.wait(pid, 10) == 1
    assert Path(f"{pipe}.err").read_text() == ""


def test_in_a_thread(sandbox: Sandbox, tmp_path: Path) -> None:
    """A program that runs a command in a separate thread gets all of its messages."""
    program = (
        "import sys, threading\n"
        "from source_truto_segments.run import run\n"
        "thread = threading.Thread(target=run, args=(sys.argv[1:],))\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments(tmp_path, sandbox)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    result = Result(messages(done.stdout))

    assert done.stderr == ""
    assert result.statuses[-1] == "COMPLETE"
    assert len(result.records) == 2 * RECORDS
