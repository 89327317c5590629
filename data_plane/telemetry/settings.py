"""[telemetry] of node.toml."""

from dataclasses import dataclass

from faos_core.telemetry_target import FILE_BYTES, FILES, INTERVAL_S, Target, check_bounds


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Where spans and metrics of the node go: within the site, or nowhere."""

    to: Target = Target.OFF
    endpoint: str = ""  # of to = "otlp": a name under [endpoints] in site.toml
    interval_s: float = INTERVAL_S
    file_bytes: int = FILE_BYTES
    files: int = FILES

    def __post_init__(self) -> None:
        check_bounds(self.interval_s, self.file_bytes, self.files)
        if self.to is Target.OTLP and not self.endpoint:
            raise ValueError('endpoint must name an entry of [endpoints] in site.toml when to = "otlp".')
