"""What a network took; apart, as those who only write it load no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RunStats:
    """What the last run took."""

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
