"""A token of SoftHSM with an EC key in it, in a folder of its own: a real PKCS#11 library, and no hardware."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.patience import PATIENCE_S

FOLDERS = ("/usr/lib/softhsm", "/usr/lib64/pkcs11", "/usr/local/lib/softhsm")
LIBRARIES = tuple(Path(folder) / "libsofthsm2.so" for folder in FOLDERS)
TOKEN, PIN, KEY_ID = "faos-test", "4711", 2
CONFIGURATION = "directories.tokendir = {folder}\nobjectstore.backend = file\nlog.level = ERROR\n"


def is_here() -> bool:
    return bool(shutil.which("softhsm2-util")) and any(map(Path.is_file, LIBRARIES))


@dataclass(frozen=True, slots=True)
class Token:
    """What a person is told about it. `environment`: what a process needs to find it."""

    pin: str
    environment: dict[str, str]
    reference: str = f"hsm:{KEY_ID}?label={TOKEN}"


@contextmanager
def token(folder: Path) -> Iterator[Token]:
    """Made in an empty folder, and found by this process and its children until left."""
    (folder / "tokens").mkdir(parents=True)
    configuration, library = folder / "softhsm2.conf", str(next(filter(Path.is_file, LIBRARIES)))
    configuration.write_text(CONFIGURATION.format(folder=folder / "tokens"))
    made = Token(PIN, {"SOFTHSM2_CONF": str(configuration), "PYKCS11LIB": library})
    before = {name: os.environ.get(name) for name in made.environment}
    os.environ.update(made.environment)
    forget_library(library)
    try:
        fill(folder)
        yield made
    finally:
        forget_library(library)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def fill(folder: Path) -> None:
    """The token, and an EC P-256 key pair in it."""
    key = folder / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    softhsm("--init-token", "--free", "--label", TOKEN, "--so-pin", "4712", "--pin", PIN)
    softhsm("--import", str(key), "--token", TOKEN, "--label", "publisher", "--id", f"{KEY_ID:02x}", "--pin", PIN)
    key.unlink()


def softhsm(*arguments: str) -> None:
    subprocess.run(("softhsm2-util", *arguments), check=True, capture_output=True, timeout=PATIENCE_S)


def forget_library(path: str) -> None:
    """The library reads its configuration once, when it is loaded."""
    if loaded := sys.modules.get("pkcs11"):
        loaded.unload(path)
