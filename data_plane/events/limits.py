"""How much may wait."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How much waits at most while the control plane is gone. A run's end takes about 100 bytes."""

    events: int = 100_000
    size_bytes: int = 32 * 1024 * 1024  # of bodies

    def __post_init__(self) -> None:
        if self.events < 16 or self.size_bytes < 16 * 1024:
            raise ValueError("A spool holds at least 16 events and 16384 bytes.")
