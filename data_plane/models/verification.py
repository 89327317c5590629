"""Model files are checked against the digest that the site pinned before anything reads them."""

import asyncio
import hashlib
import threading
from pathlib import Path

from data_plane.models import errors
from faos_core.errors import IntegrityError, SetupError


class FileVerifier:
    """Remembers in memory which files were verified, so that a reload does not hash 100 MB again.

    A file is known by path, size, modification time and inode; nothing is remembered over a restart, so nobody can
    forge it on disk. Any thread may call.
    """

    def __init__(self) -> None:
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self._lock = threading.Lock()

    async def verify(self, path: Path, sha256: str) -> None:
        """Return when the file has this digest (64 hex digits).

        Raises: IntegrityError (another digest), SetupError (missing or unreadable).
        """
        found = await asyncio.to_thread(self._digest, path)
        if found != sha256.lower():
            raise IntegrityError(errors.FILE_CHANGED, path=path, expected=sha256, found=found)

    def _digest(self, path: Path) -> str:
        try:
            with path.open("rb") as file, self._lock:
                status = path.stat()
                key = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
                if key not in self._digests:
                    self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
                return self._digests[key]
        except OSError as error:
            raise SetupError(errors.FILE_MISSING, path=path, reason=error.strerror) from error
