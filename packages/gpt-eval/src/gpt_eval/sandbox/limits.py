"""What one generated program may use."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds on one execution; what exceeds one is killed and has failed."""

    seconds: float = 5.0
    """Of wall time, after which every process of the program is killed."""
    cpu_seconds: int = 6
    """Per process."""
    memory_bytes: int = 256 * MIB
    """Address space of a process, and resident memory of all processes together (read every 20 ms)."""
    processes: int = 64
    """Processes and threads alive at once."""
    file_bytes: int = 16 * MIB
    """Per file; the folder that it may write to holds four times as much."""
    output_bytes: int = 64 * 1024
    """Of stdout and stderr together that are kept; the rest is read and dropped."""

    def __post_init__(self) -> None:
        for name in ("seconds", "cpu_seconds", "memory_bytes", "processes", "file_bytes", "output_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Limits.{name} must be positive, got {getattr(self, name)}")
