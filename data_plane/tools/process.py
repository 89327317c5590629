"""A tool server's process: lines in, lines out, and a death that is certain."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from data_plane.tools.sandbox import Launch

STDERR_BYTES = 16 * 1024
EXIT_GRACE_S = 1.0
REAP_S = 5.0


class LineTooLongError(Exception):
    """A line of standard output exceeds the limit."""


class ServerProcess:
    """Made by `running`; one reader and one writer at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = bytearray()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> bytes:
        """The last 16 KiB of standard error. May hold customer content: for a person at the site, never for a log."""
        return bytes(self._stderr)

    async def read_line(self) -> bytes | None:
        """The next line without its end, or None when standard output ended. Raises LineTooLongError."""
        assert self._process.stdout
        try:
            line = await self._process.stdout.readline()
        except ValueError as error:
            raise LineTooLongError from error
        return line.rstrip(b"\r\n") if line else None

    async def discard_stdout(self) -> None:
        """Read what is left and forget it: a process is only gone for asyncio when its pipes have ended."""
        assert self._process.stdout
        while await self._process.stdout.read(65536):
            pass

    async def write_line(self, line: bytes) -> None:
        """Return when the pipe took it. A dead reader is no error here: it shows as the end of standard output."""
        assert self._process.stdin
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(line + b"\n")
            await self._process.stdin.drain()

    async def drain_stderr(self) -> None:
        """Keep the last of standard error until it ends, so that a talkative server does not block."""
        assert self._process.stderr
        while chunk := await self._process.stderr.read(4096):
            self._stderr += chunk
            del self._stderr[:-STDERR_BYTES]

    def kill(self) -> None:
        """End the process and its whole session now. Idempotent."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Close its standard input, wait a second, kill. Returns when it is gone, within 6 s. Idempotent."""
        assert self._process.stdin
        self._process.stdin.close()
        if not await self._gone(EXIT_GRACE_S):
            self.kill()
            await self._gone(REAP_S)

    async def _gone(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def running(launch: Launch, *, line_bytes: int) -> AsyncIterator[ServerProcess]:
    """A started process, gone on leaving. line_bytes: the longest line that `read_line` accepts.

    Raises: OSError (it cannot be started).
    """
    process = ServerProcess(
        await asyncio.create_subprocess_exec(
            *launch.argv,
            env=launch.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=line_bytes,
            start_new_session=True,  # Ctrl-C at the node's terminal is the node's to handle
        )
    )
    try:
        yield process
    finally:
        await process.stop()
