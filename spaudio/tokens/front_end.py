"""The choice of a token front-end: ``tokens.name`` and the settings that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spaudio.errors import ConfigError
from spaudio.tokens.logmel import LogMelConfig
from spaudio.tokens.normalise import check_mode
from spaudio.tokens.samples import WaveformConfig, WaveformFrames
from spaudio.tokens.waveform import WaveformFrontEnd

FRONT_ENDS: dict[str, type[LogMelConfig] | type[WaveformConfig]] = {
    "spectrogram": LogMelConfig,
    "waveform": WaveformConfig,
}
COMMON = ("name", "stack", "normalise")


@dataclass(frozen=True)
class TokenSettings:
    """How tokens are made.

    Args:
        front_end: Settings of the front-end.
        stack: Frames a token.
        normalise: Mode of the normalisation.

    Raises:
        ConfigError: If a value is out of range.
    """

    front_end: LogMelConfig | WaveformConfig
    stack: int = 1
    normalise: str = "global"

    def __post_init__(self) -> None:
        if self.stack < 1:
            raise ConfigError(f"tokens.stack must be at least 1; got {self.stack}")
        check_mode(self.normalise)

    @property
    def cached(self) -> LogMelConfig | WaveformFrames:
        """What the feature cache holds."""
        front_end = self.front_end
        return front_end.cached if isinstance(front_end, WaveformConfig) else front_end

    @property
    def features(self) -> int:
        """Width of a token as the model projects it."""
        front_end = self.front_end
        bands = front_end.num_filters if isinstance(front_end, WaveformConfig) else front_end.n_mels
        return self.stack * bands

    def module(self) -> WaveformFrontEnd | None:
        """Builds the part of the front-end that is trained with the model, where there is one."""
        if isinstance(self.front_end, WaveformConfig):
            return WaveformFrontEnd(self.front_end, self.stack, self.normalise)
        return None


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what only another front-end knows.

    A recipe's YAML may tune several front-ends under ``tokens``; each takes what is its own, so
    that one override, ``tokens=waveform``, is enough.

    Args:
        settings: The group ``tokens``; without ``name`` they are the spectrogram's.

    Returns:
        The settings of the chosen front-end.

    Raises:
        ConfigError: If the name is unknown, or a setting is unknown to every front-end.
    """
    name = settings.get("name", "spectrogram")
    if name not in FRONT_ENDS:
        raise ConfigError(f"tokens.name must be one of {sorted(FRONT_ENDS)}; got {name!r}")
    known = {kind: {*COMMON, *(f.name for f in fields(c))} for kind, c in FRONT_ENDS.items()}
    for key in settings:
        if not any(key in names for names in known.values()):
            raise ConfigError(f"tokens.{key} is unknown; {name} has {sorted(known[name])}")
    return {key: value for key, value in settings.items() if key in known[name]}


def read_tokens(settings: Mapping[str, Any]) -> TokenSettings:
    """Reads the group ``tokens`` of a configuration.

    Args:
        settings: ``name``, ``stack``, ``normalise`` and the front-end's own.

    Raises:
        ConfigError: If a setting is unknown, missing or out of range.
    """
    own = own_settings(settings)
    kind = FRONT_ENDS[own.pop("name", "spectrogram")]
    common = {key: own.pop(key) for key in COMMON if key in own}
    if "sample_rate" not in own:
        raise ConfigError("tokens.sample_rate is missing; give it in Hz")
    return TokenSettings(kind(**own), **common)
