"""The local API's server: one Unix socket, mode 0600, in a folder of mode 0700. Nothing listens on a port."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from data_plane.api.errors import ALREADY_RUNNING, SOCKET_FAILED, SOCKET_PATH_TOO_LONG
from data_plane.api.service import SiteApi
from faos.site.v1.site_pb2_grpc import add_SiteServiceServicer_to_server
from faos_core.errors import ConflictError, SetupError
from faos_core.site_socket import CHANNEL_OPTIONS, CLIENT_OPTIONS, socket_path
from tunnel.error_mapping import ErrorInterceptor

LOCK_FILE = "node.lock"
SOCKET_PATH_LIMIT = 107  # bytes; sun_path of unix(7), less its final zero
STOP_GRACE_S = 1.0


def channel(data_dir: Path) -> grpc.aio.Channel:
    """A client's channel to the node of this data folder. The caller closes it."""
    return grpc.aio.insecure_channel(f"unix:{socket_path(data_dir)}", options=CLIENT_OPTIONS)


class SiteServer:
    """Serves the local API until cancelled. See faos_core.lifecycle.Service.

    run() raises: ConflictError (api.already_running), SetupError (api.socket_path_too_long, api.socket_failed).
    """

    name = "site-api"

    def __init__(self, data_dir: Path, api: SiteApi, *, folder_is_owned: bool = False) -> None:
        """folder_is_owned: the caller holds `owned(data_dir)` already, as a node does before it opens any store."""
        self.ready = asyncio.Event()
        self._data_dir = data_dir
        self._api = api
        self._folder_is_owned = folder_is_owned

    async def run(self) -> None:
        path = socket_path(self._data_dir)
        check_length(path)
        with contextlib.nullcontext() if self._folder_is_owned else owned(path.parent):
            server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=CHANNEL_OPTIONS)
            add_SiteServiceServicer_to_server(self._api, server)
            bind(server, path)
            try:
                await server.start()
                self.ready.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.shield(server.stop(STOP_GRACE_S))
                path.unlink(missing_ok=True)


def check_length(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        raise SetupError(SOCKET_PATH_TOO_LONG, path=path, limit=SOCKET_PATH_LIMIT, length=length)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold the folder for this process: a node enters this first, since two nodes over one journal would drive the
    same runs. The kernel lets go of it when the process dies, however it dies.

    Raises: ConflictError (api.already_running), SetupError (api.socket_failed).
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(SOCKET_FAILED, path=folder) from error
    with contextlib.closing(os.fdopen(descriptor, "r+b")) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(ALREADY_RUNNING, folder=folder) from error
        yield


def bind(server: grpc.aio.Server, path: Path) -> None:
    """Only by the owner of the folder: a socket that is there is a dead process's. Raises SetupError."""
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{path}")
        path.chmod(0o600)
    except (OSError, RuntimeError) as error:
        raise SetupError(SOCKET_FAILED, path=path) from error
    finally:
        os.umask(before)
