"""The image and a release install packages that are pinned by version and hash."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from unit_tests.test_packaging import DOCKERFILE, ROOT, WORKFLOWS, all_uses, requirements_of_setup

LOCKS = {
    "requirements.lock": requirements_of_setup(),
    ".github/release.lock": [
        Requirement(line) for line in (ROOT / ".github" / "release.in").read_text().splitlines()
    ],
}
HASH = r" \\\n    --hash=sha256:[0-9a-f]{64}"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_current(name: str) -> None:
    """The lock has each direct dependency, in its range. If not, run scripts/lock.sh."""
    locked = [
        Requirement(line) for line in re.findall(r"^[^ ].*?(?= \\$)", text(name), re.MULTILINE)
    ]
    for wanted in LOCKS[name]:
        versions = [str(found.specifier) for found in locked if found.name == wanted.name]
        assert versions, f"{name} lacks {wanted.name}"
        assert all(wanted.specifier.contains(found.removeprefix("==")) for found in versions)
    assert len(locked) > 2 * len(LOCKS[name])


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_hashes_alone(name: str) -> None:
    """Every package has hashes, and no line names an index, a link or a file."""
    assert re.fullmatch(rf"(?:[a-z0-9._-]+==[^\s;]+(?: ; [^\\\n]+)?(?:{HASH})+\n)+", text(name))


def test_image_is_built_from_its_lock() -> None:
    """The image gets its dependencies only from the lock."""
    installs = re.findall(r"pip --python \S+ install(?:.*\\\n)*.*", DOCKERFILE)

    assert "--require-hashes --requirement requirements.lock" in installs[0]
    assert all("--no-index --no-deps --no-build-isolation" in each for each in installs[1:])
    assert "!requirements.lock" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(path: Path) -> None:
    """Actions are pinned to a commit, and jobs that publish have an environment."""
    content = path.read_text()
    jobs = yaml.safe_load(content)["jobs"].values()

    for used in all_uses(yaml.safe_load(content)):
        assert used.startswith("./") or re.search(
            rf"{used} # v\d+\.\d+\.\d+$", content, re.MULTILINE
        ), used
        assert used.startswith("./") or re.search(r"@[0-9a-f]{40}$", used)
    assert all("environment" in job for job in jobs if "write" in str(job.get("permissions")))


def text(name: str) -> str:
    return (ROOT / name).read_text()
