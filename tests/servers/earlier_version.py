"""The version before this one, from git's history: unpacked into a folder and run in the environment of today."""

import os
import subprocess
from functools import cache
from pathlib import Path

from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("control_plane", "data_plane", "faos_core", "installer", "proto", "tunnel")
UPSTREAM = "origin/main"


def git(*arguments: str) -> bytes:
    """Of this very folder, not of a repository that happens to be around it.

    Raises CalledProcessError; FileNotFoundError without git.
    """
    command = ["git", "--git-dir", str(ROOT / ".git"), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE_S).stdout


@cache
def commit() -> str | None:
    """FAOS_EARLIER_COMMIT; or what landed last, where that is known and not this; or the newest commit before this one
    that changed the product. None where there is no history."""
    if named := os.environ.get("FAOS_EARLIER_COMMIT"):
        return named
    try:
        here = git("rev-parse", "HEAD").decode().strip()
        landed = git("for-each-ref", "--format=%(objectname)", f"refs/remotes/{UPSTREAM}").decode().split()
        before = git("rev-list", "-n", "2", "HEAD", "--", *PRODUCT).decode().split()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    return next((each for each in [*landed, *before[1:]] if each != here), None)


def is_here() -> bool:
    """Also where there is no earlier version at all, which `is_first` says; not where this checkout was cut short."""
    return commit() is not None or is_first()


def is_first() -> bool:
    """Whether the whole history is here, and nothing in it comes before this version."""
    try:
        return commit() is None and git("rev-parse", "--is-shallow-repository").strip() == b"false"
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False


def unpack(folder: Path) -> dict[str, str]:
    """The environment in which `python -m faos_cli` is that version, unpacked into the folder."""
    archive = git("archive", "--format=tar", str(commit()), "--", *PRODUCT)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)  # our own
    roots = [folder, folder / "proto", folder / "installer"]
    return {"PYTHONPATH": os.pathsep.join(map(str, roots)), "PYTHONDONTWRITEBYTECODE": "1"}
