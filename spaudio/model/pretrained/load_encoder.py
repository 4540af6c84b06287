"""Loads pretrained encoders from a folder or the Hugging Face Hub."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from spaudio.errors import ConfigError, SpaudioError, first_line, how_to_install
from spaudio.filters.transformer import attention
from spaudio.model.pretrained.convolutional_encoder import MODEL_TYPES, ConvolutionalEncoder
from spaudio.model.pretrained.encoder_source import is_missing
from spaudio.model.pretrained.pretrained_encoder import RATE, PretrainedEncoder
from spaudio.model.pretrained.spectrogram_encoder import SpectrogramEncoder
from spaudio.model.pretrained.whisper_encoder import WhisperAudioEncoder

SUPPORTED = ("whisper", "audio-spectrogram-transformer", *MODEL_TYPES)
# Settings of the feature extractor, and those of the encoder that they must be equal to.
_INPUTS = {
    "whisper": {"feature_size": "num_mel_bins"},
    "audio-spectrogram-transformer": {"num_mel_bins": "num_mel_bins", "max_length": "max_length"},
}
# Classes of feature extractors; all other architectures use that of wav2vec2.
_EXTRACTORS = {
    "whisper": "WhisperFeatureExtractor",
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
}
_HELP = "give a folder with config.json, preprocessor_config.json and model.safetensors, or the id"


def load_encoder(source: str) -> PretrainedEncoder:
    """Loads a pretrained encoder from safetensors only; no code from the repository is run.

    Args:
        source: Folder, for which nothing is downloaded, or id on the Hugging Face Hub.

    Raises:
        ConfigError: If it cannot be loaded, or its architecture is not supported.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"model=pretrained needs transformers ({error}): {how_to_install('pretrained')}"
        ) from error
    local = Path(source).is_dir()
    options = {"local_files_only": local, "trust_remote_code": False}
    where = f"model.source={source}"
    if is_missing(source):
        raise ConfigError(f"{where}: there is no such folder; {_HELP} of a public model")
    with _named_errors(where):
        config = transformers.AutoConfig.from_pretrained(source, **options)
        if config.model_type not in SUPPORTED:
            raise ConfigError(
                f"{where} has the architecture {config.model_type!r}; supported are "
                f"{', '.join(SUPPORTED)}"
            )
        reader: Any = transformers.AutoFeatureExtractor
        extractor = reader.from_pretrained(source, **options)
        kind: Any = transformers.AutoModel
        whisper = config.model_type == "whisper"
        if whisper:
            from transformers.models.whisper.modeling_whisper import WhisperEncoder

            alone = "WhisperEncoder" in (config.architectures or [])
            kind = WhisperEncoder if alone else transformers.WhisperModel
            options.pop("trust_remote_code")
        with _quiet(transformers):
            net, loading = kind.from_pretrained(
                source,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=_attention() if config.model_type != "wavlm" else None,
                output_attentions=False,  # a fine-tuned model may have saved true
                output_loading_info=True,
                **options,
            )
    _check_fits(where, config, extractor, loading)
    if "masked_spec_embed" in loading["missing_keys"]:  # it is not read here, but drawn at random
        net.masked_spec_embed.data.zero_()  # so that the hash is the same each time
    if config.model_type == "wavlm":  # torch warns of its masks
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
    if whisper:
        return WhisperAudioEncoder(net if alone else net.encoder, extractor, source)
    convolutional = config.model_type in MODEL_TYPES
    return (ConvolutionalEncoder if convolutional else SpectrogramEncoder)(net, extractor, source)


@contextmanager
def _named_errors(where: str) -> Iterator[None]:
    """Raises errors of transformers as ConfigError that names the setting and a remedy."""
    try:
        yield
    except SpaudioError:
        raise
    except SafetensorError as error:
        raise ConfigError(
            f"{where}: model.safetensors is damaged, or a pointer of Git LFS ({error}); fetch it "
            "again"
        ) from error
    except RuntimeError as error:  # such as weights of another shape
        raise ConfigError(
            f"{where}: its weights cannot be loaded into the model of its config.json "
            f"({first_line(error)}); if they are not of the same model, fetch both again"
        ) from error
    except Exception as error:  # transformers has classes of its own for a wrong config.json
        said = " ".join(str(error).split()) if "validat" in type(error).__name__.lower() else ""
        raise ConfigError(
            f"{where} cannot be loaded ({said or first_line(error)}); {_HELP} of a public model, "
            "which needs a network the first time"
        ) from error


def _check_fits(where: str, config: Any, extractor: Any, loading: Mapping[str, Any]) -> None:
    """Checks that weights, feature extractor and config are of one model, at the supported rate.

    Args:
        where: The setting and its value, for messages.
        config: Content of config.json.
        extractor: The feature extractor.
        loading: What transformers says about the loaded weights.

    Raises:
        ConfigError: If they do not fit.
    """
    # Neither is read: the embedding of masks, and the decoder, which classifiers of Whisper lack.
    missing = [
        name
        for name in loading["missing_keys"]
        if name != "masked_spec_embed" and not name.startswith("decoder.")
    ]
    if missing:
        raise ConfigError(
            f"{where}: its weights lack {len(missing)} parameters of the encoder, such as "
            f"{sorted(missing)[0]}; {_HELP} of a model of this architecture"
        )
    kind = type(extractor).__name__
    if kind != (fitting := _EXTRACTORS.get(config.model_type, "Wav2Vec2FeatureExtractor")):
        raise ConfigError(
            f"{where}: preprocessor_config.json is that of a {kind}, but {config.model_type} needs "
            f"a {fitting}; fetch it from the same model"
        )
    for name, wanted in _INPUTS.get(config.model_type, {}).items():
        found, reads = getattr(extractor, name, None), getattr(config, wanted)
        if found != reads:
            raise ConfigError(
                f"{where}: preprocessor_config.json has {name}={found}, but config.json has "
                f"{wanted}={reads}; fetch both from the same model"
            )
    if extractor.sampling_rate != RATE:
        raise ConfigError(
            f"{where} takes {extractor.sampling_rate} Hz; only {RATE} Hz is supported"
        )


def _attention() -> str:
    """Registers this package's attention with transformers; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("spaudio", _attend)
    AttentionMaskInterface.register("spaudio", sdpa_mask)
    return "spaudio"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; the layers are in evaluation mode, without dropout."""
    mixed = attention(query, key, value, attention_mask, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Hides the report and progress bar of loading."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
