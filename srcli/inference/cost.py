"""Time and memory of enlarging, measured or estimated; apart, as it loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RunStats:
    """Time, device and tiles of the last run of a network."""

    device: str  # where it ended
    precision: str
    tiles: int = 0
    fallbacks: int = 0  # times that memory ran out: tiles were cut, or work moved
    seconds: float = 0.0

    def followed_by(self, later: RunStats) -> RunStats:
        """Both runs as one, which ended where the later one ended."""
        return replace(
            later,
            tiles=self.tiles + later.tiles,
            fallbacks=self.fallbacks + later.fallbacks,
            seconds=self.seconds + later.seconds,
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimated time, memory and room of one picture or of a batch."""

    seconds: float  # of enlarging
    memory: int  # bytes of host memory at its peak, those of the program included
    bytes: int  # of the files written

    def as_dict(self) -> dict[str, float | int]:
        """The cost as JSON values."""
        seconds = round(self.seconds, 3)
        return {"seconds": seconds, "memory": self.memory, "bytes": self.bytes}
