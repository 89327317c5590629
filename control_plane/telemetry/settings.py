"""[telemetry] of control-plane.toml."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from faos_core.telemetry_target import FILE_BYTES, FILES, INTERVAL_S, Target, check_bounds


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Where spans and metrics of the control plane's process go. They hold names, numbers and codes, no content."""

    to: Target = Target.OFF
    endpoint: str = ""  # of to = "otlp": base URL of a collector that takes OTLP over HTTP in protobuf
    ca_file: Path | None = None  # PEM, used instead of the system's authorities
    interval_s: float = INTERVAL_S
    file_bytes: int = FILE_BYTES
    files: int = FILES

    def __post_init__(self) -> None:
        check_bounds(self.interval_s, self.file_bytes, self.files)
        if self.to is not Target.OTLP:
            return
        url = urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.username:
            raise ValueError("endpoint must be the URL of the collector, for example http://127.0.0.1:4318.")
