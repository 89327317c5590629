"""The one administrator of a fresh control plane: whoever can read its token file."""

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from control_plane.api.errors import TOKEN_FILE_UNUSABLE, TOKEN_WRONG
from control_plane.api.interfaces import Caller
from faos_core.disk import Disk
from faos_core.errors import SetupError, UnauthenticatedError

SUBJECT = "bootstrap-admin"
TOKEN_PATTERN = re.compile(r"faos-admin-[A-Za-z0-9_-]{43}")  # 32 random bytes, base64url


class BootstrapAdmin:
    """An Authenticator with one caller, who may do everything. Keeps only the SHA-256 of the token."""

    def __init__(self, token_sha256: bytes) -> None:
        self._token_sha256 = token_sha256

    @classmethod
    def open(cls, file: Path) -> "BootstrapAdmin":
        """Read the token file, or make it (mode 0600) where there is none. Blocking; fsyncs.

        A file that others could read is refused rather than repaired: they may have read it.
        Raises: SetupError (admin.token_file_unusable).
        """
        try:
            if not file.exists():
                _create(file)
            token = _read(file)
        except (OSError, UnicodeDecodeError) as error:
            reason = f"The system says: {getattr(error, 'strerror', None) or 'it is not text'}."
            raise SetupError(TOKEN_FILE_UNUSABLE, file=str(file), reason=reason) from error
        return cls(_digest(token))

    async def authenticate(self, token: str) -> Caller:
        """Constant-time in the token. Raises UnauthenticatedError."""
        if not hmac.compare_digest(_digest(token), self._token_sha256):
            raise UnauthenticatedError(TOKEN_WRONG)
        return Caller(SUBJECT, permissions=None)


def _create(file: Path) -> None:
    """Whole or not at all; of two control planes that start at once, both use the token of one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Disk().put_new(file, f"faos-admin-{secrets.token_urlsafe(32)}\n".encode())


def _read(file: Path) -> str:
    if file.stat().st_mode & 0o077:
        reason = "Others than its owner may read it, so its token counts as known."
        raise SetupError(TOKEN_FILE_UNUSABLE, file=str(file), reason=reason)
    token = file.read_text(encoding="ascii").strip()
    if not TOKEN_PATTERN.fullmatch(token):
        raise SetupError(TOKEN_FILE_UNUSABLE, file=str(file), reason="It does not hold a token.")
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
