import json
from pathlib import Path

import pytest
import torch

from spaudio.errors import CheckpointError, ConfigError
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.waveform import WaveformFrontEnd

pytest.importorskip("huggingface_hub")
from spaudio.model.saved import SavedClassifier

SHAPE = EncoderConfig(dim=16, layers=2, heads=2, filter_layers=[1])
LABELS = ["dog", "cat", "owl"]


@pytest.mark.parametrize(
    "options", [{"name": "none"}, {"name": "multiscale", "scales": [[3, 2], [2, 5]]}]
)
def test_a_model_comes_back_to_the_bit(options: dict[str, object], tmp_path: Path) -> None:
    model = Classifier(10, 3, SHAPE, options, "attention").eval()
    SavedClassifier.of(model, LABELS).save_pretrained(tmp_path)
    loaded = SavedClassifier.from_pretrained(tmp_path)
    x = torch.randn(2, 7, 10)
    assert torch.equal(loaded.model.eval()(x), model(x))
    assert loaded.labels == LABELS
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json", ".md"}


def test_a_learned_front_end_comes_back_with_its_model(tmp_path: Path) -> None:
    bank = WaveformConfig(num_filters=4, kernel=0.02, pooling="max", init="random")
    config = TokenConfig(
        sample_rate=1000, front_end="waveform", stack=2, normalise="clip_std", waveform=bank
    )
    front_end = WaveformFrontEnd(config)
    x = torch.randn(2, 7, 20)
    front_end.fit_normaliser([(x, torch.zeros(2, 7, dtype=torch.bool))])
    model = Classifier(8, 3, SHAPE, {"name": "none"}, front_end=front_end).eval()
    SavedClassifier.of(model, LABELS).save_pretrained(tmp_path)
    loaded = SavedClassifier.from_pretrained(tmp_path).model.eval()
    assert torch.equal(loaded(x), model(x))
    assert loaded.front_end is not None
    assert loaded.front_end.config == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"filter_options": {"name": "os.system"}}, "os.system"),
        ({"encoder": {"_target_": "os.system"}}, "_target_"),
        ({"tokens": {"front_end": "os.system", "sample_rate": 8000}}, "os.system"),
        ({"features": 11}, r"do not fit its config\.json .*project\.weight"),
    ],
)
def test_a_config_names_settings_that_fit_the_weights_and_never_code(
    change: dict[str, object], named: str, tmp_path: Path
) -> None:
    model = Classifier(10, 3, SHAPE, {"name": "none"})
    SavedClassifier.of(model, LABELS).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError if "features" in change else ConfigError, match=named):
        SavedClassifier.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="3 outputs; got 2 labels"):
        SavedClassifier.of(model, LABELS[:2])
