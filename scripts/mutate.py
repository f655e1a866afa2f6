"""Runs mutmut, shows how far it has come, and sums up what it found."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "source_truto_segments"
MUTMUT = Path(sys.executable).with_name("mutmut")
# Beside these, mutmut knows ways in which the trial itself can have failed.
COLUMNS = ("killed", "survived", "timeout", "no tests")
# A change after which a test never ends was noticed, too.
NOTICED = ("killed", "timeout")
# Such as "⠏ 426/984  🎉 417 🫥 0  ⏰ 0  🤔 0  🙁 9  🔇 0  🧙 0".
STATUS = re.compile(r"(?P<tried>\d+)/(?P<all>\d+) .*⏰ (?P<timeout>\d+).*🙁 (?P<survived>\d+)")
RESULT = re.compile(rf"\s*(?P<name>{PACKAGE}\.(?P<module>\w+)\.\S+): (?P<status>[a-z ]+)")
TOLD_EVERY_SECONDS = 1.0 if sys.stdout.isatty() else 15.0


def main(modules: list[str]) -> None:
    _, _, settings = (ROOT / "pyproject.toml").read_text("utf-8").partition("[tool.mutmut]")
    core = re.findall(rf'"{PACKAGE}/(\w+)\.py"', settings)
    for module in modules:
        if module not in core:
            fail(f"{module} is none of the modules that are changed: {', '.join(core)}.")
    at_once = jobs()
    began = time.monotonic()
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    try_all([f"{PACKAGE}.{module}.*" for module in modules], at_once)
    results = [
        found
        for found in RESULT.finditer(answer("results", "--all", "true"))
        if not modules or found["module"] in modules
    ]
    if not results:
        fail("mutmut tried no change. `.venv/bin/mutmut run` shows what it does.")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print_table(results)
    print_unnoticed(results)
    print(f"\nDone in {minutes} min {seconds} s.")


def try_all(patterns: list[str], at_once: int) -> None:
    """Tries all changes of these names, or simply all."""
    began = time.monotonic()
    command = [str(MUTMUT), "run", "--max-children", str(at_once), *patterns]
    words: list[str] = []
    told = began
    print("Making the changes and running the tests without any (about a minute) ...", flush=True)
    with (
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUTF8": "1"},
            # Its own group: what it has started ends with it.
            start_new_session=True,
        ) as process,
        ended(process),
    ):
        # Each of its updates ends with a carriage return, which is read as the end of a line.
        for line in process.stdout or ():
            status = STATUS.search(line)
            if status is None:
                words.append(line.rstrip())
            elif time.monotonic() - told >= TOLD_EVERY_SECONDS:
                told = time.monotonic()
                print_progress(status, told - began, is_whole=not patterns)
    if sys.stdout.isatty():
        print()
    if process.returncode:
        print("\n".join(word for word in words[-20:] if word), file=sys.stderr)
        fail(
            f"mutmut ended with {process.returncode}; its last lines are above. If a test fails, "
            "it does so without any change: .venv/bin/pytest unit_tests shows it."
        )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends a process and all that it has started, whatever happens meanwhile."""
    try:
        yield
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def print_progress(status: re.Match[str], seconds: float, *, is_whole: bool) -> None:
    tried = f"{status['tried']} of {status['all']}" if is_whole else status["tried"]
    text = (
        f"{seconds:.0f} s: {tried} changes tried, {status['survived']} not noticed, "
        f"{status['timeout']} timed out"
    )
    if sys.stdout.isatty():
        print(f"\r{text}   ", end="", flush=True)
    else:
        print(text, flush=True)


def print_table(results: Iterable[re.Match[str]]) -> None:
    by_module: dict[str, Counter[str]] = {}
    for result in results:
        by_module.setdefault(result["module"], Counter())[result["status"]] += 1
    rows = dict(sorted(by_module.items()))
    rows["all"] = sum(by_module.values(), Counter())
    width = max(map(len, rows))
    print(f"\n{'module':{width}}", *(f"{column:>9}" for column in (*COLUMNS, "total", "score")))
    for module, counts in rows.items():
        total = counts.total()
        score = sum(counts[status] for status in NOTICED) / max(1, total)
        cells = (*(counts[column] for column in COLUMNS), total)
        print(f"{module:{width}}", *(f"{cell:>9}" for cell in cells), f"{score:>9.1%}")


def print_unnoticed(results: Iterable[re.Match[str]]) -> None:
    others = [result for result in results if result["status"] != "killed"]
    if not others:
        print("\nEvery change was noticed.")
        return
    print("\nNot killed:")
    for result in others:
        print(f"  {result['name']}: {result['status']}")
    print("\nTo see one:\n  .venv/bin/mutmut show 'NAME'")


def answer(*arguments: str) -> str:
    process = subprocess.run(
        [str(MUTMUT), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )
    if process.returncode:
        fail(f"mutmut could not tell its results: {process.stderr.strip()[-500:]}")
    return process.stdout


def jobs() -> int:
    wanted = os.environ.get("JOBS") or str(os.cpu_count() or 1)
    if not wanted.isdecimal() or int(wanted) == 0:
        fail(f"JOBS={wanted} is no number of changes to try at once.")
    return int(wanted)


def fail(sentence: str) -> NoReturn:
    print(f"\nscripts/mutate.sh: {sentence}", file=sys.stderr)
    sys.exit(1)


def interrupted(number: int, _: object) -> NoReturn:
    print(
        "\nscripts/mutate.sh: Interrupted. It can be run again, and begins anew.", file=sys.stderr
    )
    sys.exit(128 + number)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupted)
    main(sys.argv[1:])
