"""Where telemetry goes, as settings say it."""

from enum import StrEnum

INTERVAL_S = 10.0
FILE_BYTES = 16 * 1024 * 1024
FILES = 4


class Target(StrEnum):
    OFF = "off"
    FILE = "file"  # OTLP in JSON lines, in telemetry/ of the data folder
    OTLP = "otlp"  # a collector


def check_bounds(interval_s: float, file_bytes: int, files: int) -> None:
    """Raises ValueError."""
    if not 1 <= interval_s <= 3600:
        raise ValueError("interval_s must be from 1 to 3600.")
    if not 64 * 1024 <= file_bytes <= 1024**3:
        raise ValueError("file_bytes must be from 65536 (64 KiB) to 1073741824 (1 GiB).")
    if not 1 <= files <= 100:
        raise ValueError("files must be from 1 to 100.")


def is_final(status: int) -> bool:
    """Whether a collector's answer means that it never takes this request: to send it again is of no use.

    Source: OTLP 1.x, "OTLP/HTTP response", retryable response codes.
    """
    return 400 <= status < 500 and status not in (408, 429)
