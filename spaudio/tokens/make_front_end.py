"""Builds the front-end that settings name."""

from spaudio.tokens.config import TokenConfig
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.normalise import LevelNormaliser, Normaliser
from spaudio.tokens.spectrogram_front_end import SpectrogramFrontEnd
from spaudio.tokens.waveform_front_end import WaveformFrontEnd


def make_front_end(config: TokenConfig, normaliser: Normaliser | None = None) -> FrontEnd:
    """Builds the front-end named by ``config.front_end``.

    Args:
        config: The settings.
        normaliser: Normaliser of the matching class; None if only frames are needed.
    """
    if config.learned:
        return WaveformFrontEnd(config, normaliser)
    assert not isinstance(normaliser, LevelNormaliser)
    return SpectrogramFrontEnd(config, normaliser)
