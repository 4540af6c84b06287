"""Opens the pretrained encoder and the front-end of a run."""

from dataclasses import replace
from pathlib import Path

from spaudio.errors import ConfigError
from spaudio.experiment.settings import AudioSettings, PretrainedConfig, Settings
from spaudio.model.pretrained.encoded import EncodedFrontEnd
from spaudio.model.pretrained.encoder_source import is_missing
from spaudio.model.pretrained.load_encoder import load_encoder
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.report.run_files import CONFIG
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.normalise import Normaliser


def check_source(run: Path, settings: Settings) -> None:
    """Checks that the pretrained encoder of a run, if it is a local one, is where it was.

    Raises:
        ConfigError: If it is not.
    """
    model = settings.model
    if not isinstance(model, PretrainedConfig):
        return
    source = str(model.source)
    if is_missing(source):
        raise ConfigError(
            f"{run} was adapted from a local encoder, but there is no folder {source}; correct "
            f"model.source in {run / CONFIG}"
        )


def open_encoder(settings: Settings, source: str | None = None) -> PretrainedEncoder | None:
    """Loads the pretrained encoder of a run; None if it has none.

    Args:
        settings: Settings of the run.
        source: Its folder or Hub id, if it has moved since training.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    model = settings.model
    if not isinstance(model, PretrainedConfig):
        return None
    return load_encoder(source or str(model.source))


def open_front_end(
    settings: AudioSettings,
    normaliser: Normaliser | None = None,
    base: PretrainedEncoder | None = None,
) -> FrontEnd:
    """Builds the front-end of a run.

    Args:
        settings: Settings of the run.
        normaliser: Fitted on the training split; None if only frames are needed. That of a
            pretrained encoder is fixed.
        base: From :func:`open_encoder`; None loads it.

    Raises:
        ConfigError: If the pretrained encoder cannot be loaded, or cannot be adapted in this way.
    """
    base = base or open_encoder(settings)
    if base is None:
        return make_front_end(settings.tokens, normaliser)
    tokens = replace(settings.tokens, hop=base.token_seconds)
    return EncodedFrontEnd(tokens, base, settings.adaptation.cached(base))
