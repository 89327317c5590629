"""The socket of a node's local API: where it lies, and what both of its ends agree on. The node serves it, the command
line calls it."""

from pathlib import Path
from typing import Any

SOCKET_FILE = "node.sock"  # in the node's data folder
MESSAGE_BYTES = 64 * 1024 * 1024  # a whole run with its steps

# For servers and clients. No proxy: an environment that names one means the network's.
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
)
CLIENT_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.default_authority", "localhost"))


def socket_path(data_dir: Path) -> Path:
    return data_dir.resolve() / SOCKET_FILE
