"""Private keys of an operator, by reference, opened through securesystemslib.

    file:PATH                          PEM (PKCS#8); an encrypted one asks for its passphrase
    hsm:[ID][?label=TOKEN]             a key in an HSM or smart card (PKCS#11), the library in PYKCS11LIB
    pkcs11:token=TOKEN;id=%02[?module-path=LIBRARY]   the same, as RFC 7512 writes it
    awskms:… azurekms:… gcpkms:… hv:…  as securesystemslib has them; for a key that the tenant's root names already

Passphrase and PIN come from FAOS_KEY_PASSPHRASE and FAOS_KEY_PIN, or are asked for on the terminal; never from an
argument, which everybody on the machine could read.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.exceptions import Error as SigningLibraryError
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import CryptoSigner, HSMSigner, Key, Signer, SSlibKey

from faos_cli import key_errors as errors
from faos_core.disk import Disk
from faos_core.errors import ConflictError, InvalidError, SetupError

FILE, HSM, PKCS11 = "file", "hsm", "pkcs11"
LIBRARY_VARIABLE = "PYKCS11LIB"
PASSPHRASE_VARIABLE, PIN_VARIABLE = "FAOS_KEY_PASSPHRASE", "FAOS_KEY_PIN"
TYPES: dict[str, Callable[[], ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
}
OTHERS_MAY_READ = 0o077


@dataclass(frozen=True, slots=True)
class OpenKey:
    """A key that can sign. Signing may still ask for a PIN, and fail: use `signing`."""

    reference: str
    public_key: Key
    signer: Signer


def open_key(reference: str, *, named: Sequence[Key] = ()) -> OpenKey:
    """named: keys of the tenant's root, of which a KMS holds the first. Raises: SetupError, InvalidError."""
    scheme, colon, rest = reference.partition(":")
    if not colon or not scheme:
        raise InvalidError(errors.REFERENCE_MALFORMED, reference=reference, reason="It names no scheme.")
    if scheme == FILE:
        return _open_file(reference, Path(rest).expanduser())
    if scheme == PKCS11:
        return _open_hsm(reference, _as_hsm(reference, rest))
    return _open_hsm(reference, reference) if scheme == HSM else _open_elsewhere(reference, named)


@contextmanager
def signing(reference: str) -> Iterator[None]:
    """What a key's library raises, as ours."""
    try:
        with _hsm_errors(reference):
            yield
    except UnsupportedLibraryError as error:
        raise SetupError(errors.LIBRARY_MISSING, reference=reference) from error
    except (SigningLibraryError, ValueError, OSError, UnsupportedAlgorithm) as error:
        raise SetupError(errors.KEY_UNUSABLE, reference=reference, reason=_first_line(error)) from error


def pem_of(key: Key) -> str:
    """The public key as other programs read it. Raises InvalidError for one that is no plain public key."""
    if not isinstance(key, SSlibKey):
        raise InvalidError(errors.REFERENCE_MALFORMED, reference=key.keyid, reason="Its key has no PEM form.")
    said: str = key.keyval["public"]
    if key.keytype != "ed25519":
        return said
    public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(said))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


# ---- files


def generate_file(path: Path, kind: str, passphrase: str) -> Key:
    """Make a key; mode 0600, encrypted unless the passphrase is empty.

    kind: of TYPES. Raises: ConflictError (there is such a file), OSError.
    """
    private = TYPES[kind]()
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not Disk().put_new(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)):
        raise ConflictError(errors.FILE_EXISTS, file=path)
    return SSlibKey.from_crypto(private.public_key())


def new_passphrase() -> str:
    """From the environment, or typed twice. Raises SetupError where there is nobody to type it."""
    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE]
    if not sys.stdin.isatty():
        raise SetupError(
            errors.SECRET_MISSING, what="passphrase", reference="the new key", variable=PASSPHRASE_VARIABLE
        )
    return str(click.prompt("Passphrase of the new key", hide_input=True, confirmation_prompt=True, err=True))


def _open_file(reference: str, path: Path) -> OpenKey:
    with signing(reference):
        if path.stat().st_mode & OTHERS_MAY_READ:
            raise SetupError(errors.FILE_OPEN, file=path)
        signer = _crypto_signer(_private_key(reference, path.read_bytes()))
    return OpenKey(reference, signer.public_key, signer)


def _private_key(reference: str, pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except TypeError:  # it is encrypted
        passphrase = secret("passphrase", reference, PASSPHRASE_VARIABLE)
    try:
        return load_pem_private_key(pem, passphrase.encode())
    except ValueError as error:
        raise SetupError(errors.SECRET_WRONG, what="passphrase", reference=reference) from error


def _crypto_signer(private: PrivateKeyTypes) -> CryptoSigner:
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))


# ---- HSMs and smart cards


def _as_hsm(reference: str, rest: str) -> str:
    """RFC 7512's form as securesystemslib has it; its module-path goes into the environment."""
    path, _, query = rest.partition("?")
    given = dict(part.partition("=")[::2] for part in path.split(";") if part)
    asked = dict(parse_qsl(query))
    unknown = sorted((set(given) - {"token", "id", "type"}) | (set(asked) - {"module-path"}))
    if unknown or "id" not in given:
        reason = f"{unknown[0]!r} is not among what can be given." if unknown else "It names no id."
        raise InvalidError(errors.REFERENCE_MALFORMED, reference=reference, reason=reason)
    if "module-path" in asked:
        os.environ[LIBRARY_VARIABLE] = asked["module-path"]
    number = int.from_bytes(unquote_to_bytes(given["id"]), "big")
    token = unquote_to_bytes(given.get("token", "")).decode()
    return f"{HSM}:{number}" + (f"?{urlencode({'label': token})}" if token else "")


def _open_hsm(reference: str, uri: str) -> OpenKey:
    path, _, query = uri.removeprefix(f"{HSM}:").partition("?")
    if path and not path.isdecimal():
        raise InvalidError(errors.REFERENCE_MALFORMED, reference=reference, reason=f"{path!r} is no number of a key.")

    def pin(_: str) -> str:
        return secret("PIN", reference, PIN_VARIABLE)

    with signing(reference):
        _require_library(reference)
        label = dict(parse_qsl(query)).get("label")
        _, public_key = HSMSigner.import_(int(path) if path else None, label, pin)
        return OpenKey(reference, public_key, Signer.from_priv_key_uri(uri, public_key, pin))


def _require_library(reference: str) -> None:
    """Raises SetupError where PKCS#11 has nothing to speak to."""
    library = os.environ.get(LIBRARY_VARIABLE, "")
    if not Path(library).is_file():
        why = f"{library} is not there." if library else "It is not set."
        raise SetupError(errors.MODULE_MISSING, reference=reference, variable=LIBRARY_VARIABLE, reason=why)


@contextmanager
def _hsm_errors(reference: str) -> Iterator[None]:
    """Those of python-pkcs11, which securesystemslib has loaded where the extra for it is installed."""
    wrong = sys.modules.get("pkcs11.exceptions")
    if wrong is None:
        yield
        return
    try:
        yield
    except (wrong.PinIncorrect, wrong.PinInvalid, wrong.PinLenRange) as error:
        raise SetupError(errors.SECRET_WRONG, what="PIN", reference=reference) from error
    except wrong.PinLocked as error:
        raise SetupError(errors.PIN_LOCKED, reference=reference) from error
    except wrong.PKCS11Error as error:
        raise SetupError(errors.KEY_UNUSABLE, reference=reference, reason=_first_line(error)) from error


def _open_elsewhere(reference: str, named: Sequence[Key]) -> OpenKey:
    """A KMS that securesystemslib knows, holding the key that the tenant's root names."""
    if not named:
        reason = "The public key of such a key is known only from a root that names it already."
        raise InvalidError(errors.REFERENCE_MALFORMED, reference=reference, reason=reason)
    with signing(reference):
        return OpenKey(reference, named[0], Signer.from_priv_key_uri(reference, named[0], None))


@cache
def secret(what: str, reference: str, variable: str) -> str:
    """Once in a process. Raises SetupError where there is nobody to ask."""
    if variable in os.environ:
        return os.environ[variable]
    if not sys.stdin.isatty():
        raise SetupError(errors.SECRET_MISSING, what=what, reference=reference, variable=variable)
    return str(click.prompt(f"{what[0].upper()}{what[1:]} of {reference}", hide_input=True, err=True))


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    said = f": {lines[0][:200]}" if lines else ""
    return f"{type(error).__name__}{said}"
