"""How long clips are cut into segments."""

from dataclasses import dataclass

from spaudio.errors import ConfigError


@dataclass
class SegmentConfig:
    """Cuts long clips into segments that are classified separately.

    Args:
        seconds: Length of a segment; None keeps clips whole.
        hop: Step between segments, in seconds; None uses their length.

    Raises:
        ConfigError: If a value is not positive.
    """

    seconds: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigError(f"segments.{name} must be positive or null; got {value}")
        if self.hop is not None and self.seconds is None:
            raise ConfigError(f"segments.hop={self.hop} needs segments.seconds, their length")

    def in_frames(self, frame_seconds: float) -> tuple[int, int]:
        """Returns the length of a segment and the step between segments, in frames."""
        assert self.seconds is not None
        length = max(1, round(self.seconds / frame_seconds))
        return length, max(1, round((self.hop or self.seconds) / frame_seconds))

    def spans(self, frames: int, frame_seconds: float) -> list[tuple[int, int]]:
        """Returns start and stop, in frames, of each segment of a clip.

        A remainder of at least half a hop, or half a segment if that is shorter, becomes a segment
        of its own; a shorter one is dropped.
        """
        if self.seconds is None:
            return [(0, frames)]
        length, hop = self.in_frames(frame_seconds)
        # The last of several segments is short by at most half of the lesser of the two.
        count = max(1, 1 + (2 * (frames - length) + min(hop, length)) // (2 * hop))
        return [(i * hop, min(i * hop + length, frames)) for i in range(count)]
