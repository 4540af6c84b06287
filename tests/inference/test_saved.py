"""A model that was saved to be published: it comes back, says what it is, and can run no code."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import spaudio
from spaudio.errors import CheckpointError, ConfigError
from spaudio.inference.model_card import model_card
from spaudio.inference.saved import portable, portable_report, save_pretrained
from tests.fixtures.tiny_run import make_untrained_run

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def saved(own_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("saved") / "model"
    spaudio.load(own_run).save_pretrained(folder)
    return folder


def test_a_model_comes_back_to_the_bit(
    saved: Path, own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = next((own_run.parents[2] / "sounds" / "zero").iterdir())
    before = spaudio.load(own_run).predict(clip).probabilities
    np.testing.assert_array_equal(spaudio.load(saved).predict(clip).probabilities, before)
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append(name)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    loaded = spaudio.load("owner/digits")
    np.testing.assert_array_equal(loaded.predict(clip).probabilities, before)
    assert asked == ["owner/digits"]
    loaded.save_pretrained(tmp_path / "again")
    # The card keeps the command of the training, which a saved model does not hold elsewhere.
    card = (tmp_path / "again" / "README.md").read_text()
    assert card == (saved / "README.md").read_text()
    assert "preset=debug" in card


def test_what_an_incomplete_model_lacks_is_named(saved: Path, tmp_path: Path) -> None:
    model = shutil.copytree(saved, tmp_path / "model")
    for name, said in (
        ("inputs.json", "saved model, but its inputs.json is missing"),
        ("model.safetensors", "holds neither model.safetensors, as a saved model, nor"),
    ):
        (model / name).unlink()
        with pytest.raises(CheckpointError, match=said):
            spaudio.load(model)
        if name == "model.safetensors":
            shutil.copy(saved / "inputs.json", model)
            with pytest.raises(CheckpointError, match=said):
                save_pretrained(model, tmp_path / "again")


def test_it_holds_safetensors_and_nothing_of_this_machine(saved: Path, own_run: Path) -> None:
    files = {path.name for path in saved.iterdir()}
    assert files == {"README.md", "config.yaml", "inputs.json", "model.safetensors", "report.json"}
    for path in saved.iterdir():
        assert str(own_run.parents[2]).encode() not in path.read_bytes(), path


def test_folders_of_unlabelled_sounds_are_not_named(tmp_path: Path) -> None:
    run = make_untrained_run(tmp_path, "pretrain=masked", f"pretrain.source={tmp_path}")
    assert str(tmp_path) not in str(portable(run))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"metadata": f"{tmp_path}/meta.csv", "group_regex": r"/(\w+)_"}  # of another recipe
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    found = portable(run)
    assert (found["metadata"], found["group_regex"]) == ("…/meta.csv", r"/(\w+)_")
    report = {"pretrain": {"source": str(tmp_path)}, "base": {"source": "owner/encoder"}}
    assert portable_report(report) == {
        "pretrain": {"source": tmp_path.name},
        "base": {"source": "owner/encoder"},
    }


def test_the_card_says_data_splits_figures_limits_and_licence(saved: Path) -> None:
    card = hub.ModelCard.load(saved / "README.md")
    assert card.data.library_name == "spaudio"
    [result] = card.data.eval_results
    assert result.metric_type == "accuracy"
    text = card.text
    for said in (
        "licence of the data: CC BY-SA 4.0",
        "clips: 36 training, 12 validation, 12 test",
        "split: No group (speaker, recording …) of the test split is in another split",
        f"| this model | **{result.metric_value:.4f}** (95 % interval",
        "| the same, with test groups aligned (`--align`) | ",
        "one of 3 classes: four, seven, zero",
        "frequencies above 4,000 Hz are not used",
        "every sound is assigned to one of the classes",
        "group_regex",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("source", "call", "base_model"),
    [("owner/encoder", '"OWNER/NAME")', "owner/encoder"),
     ("encoder", '"OWNER/NAME", base="FOLDER")', None)],
)  # fmt: skip
def test_the_card_names_the_pretrained_encoder(
    saved: Path, source: str, call: str, base_model: str | None
) -> None:
    settings = yaml.safe_load((saved / "config.yaml").read_text())
    report = json.loads((saved / "report.json").read_text())
    settings["filter"]["name"] = "none"
    report["base"] = {"source": source, "sha256": "0123456789ab" + "f" * 52}
    text = model_card(
        settings, report, ["a", "b"], longest_seconds=1, multi_label=False, command="train"
    )
    assert "pip install '.[pretrained]'" in text
    assert f"spaudio.load({call} " in text
    assert f"Encoder: {source} (SHA-256 0123456789ab)" in text
    assert hub.ModelCard(text).data.base_model == base_model
    assert hub.ModelCard(text).data.tags == ["audio"]  # there is no filter


def test_a_card_is_written_again_without_the_command(saved: Path, tmp_path: Path) -> None:
    first = shutil.copytree(saved, tmp_path / "first")
    (first / "README.md").unlink()
    report = json.loads((first / "report.json").read_text())
    (first / "report.json").write_text(json.dumps(report | {"trained_on_valid": True}))
    spaudio.load(first).save_pretrained(tmp_path / "second")
    text = (tmp_path / "second" / "README.md").read_text()
    assert "```sh" in (saved / "README.md").read_text()
    assert "```sh" not in text
    assert "12 test; the model was trained on the validation clips too" in text


def test_the_card_names_the_unlabelled_sounds(saved: Path) -> None:
    settings = yaml.safe_load((saved / "config.yaml").read_text())
    report = json.loads((saved / "report.json").read_text())
    report["pretrain"] = {
        "source": "my_sounds", "clips": 6, "hours": 0.5, "left_out": 0, "skipped": 0,
        "mask_ratio": 0.6, "mask_tokens": 5, "steps": 10, "seconds": 2.0, "loss": 0.7,
        "held_out": 1,
    }  # fmt: skip
    card = model_card(
        settings, report, ["a", "b"], longest_seconds=1, multi_label=False, command="train"
    )
    assert "pretrained by masked prediction" in card
    assert "on 6 clips (0.50 hours) of my_sounds, without labels" in card


@pytest.mark.parametrize(("front_end", "top"), [("spectrogram", "3,000"), ("waveform", "4,000")])
def test_the_card_says_which_frequencies_are_not_used(
    saved: Path, front_end: str, top: str
) -> None:
    """Learned filters may pass all frequencies, wherever they started."""
    settings = yaml.safe_load((saved / "config.yaml").read_text())
    report = json.loads((saved / "report.json").read_text())
    report["tokens"] |= {"front_end": front_end, "f_max": 3000.0}
    card = model_card(
        settings, report, ["a", "b"], longest_seconds=1, multi_label=False, command="train"
    )
    assert f"frequencies above {top} Hz are not used" in card


def introduction(saved: Path, model: dict[str, object], filter_name: str = "none") -> str:
    """The first paragraph of the card that the model would have with other settings."""
    settings = yaml.safe_load((saved / "config.yaml").read_text())
    settings["filter"]["name"] = filter_name
    settings["model"] |= model
    report = json.loads((saved / "report.json").read_text())
    card = model_card(
        settings, report, ["a", "b"], longest_seconds=1, multi_label=False, command="train"
    )
    [found] = re.findall(r"^Classifies .*$", card, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({}, "filter after each layer: bank."),
        ({"filter_place": "attention"}, "filter before the attention of each layer: bank."),
        ({"filter_layers": [1, 0]}, "filter after layers 0, 1 (from 0): bank."),
        (
            {"source": "owner/encoder", "adapt_layers": [3], "filter_place": "attention"},
            "filter after layer 3 (from 0): bank.",
        ),
    ],
)
def test_the_card_says_where_the_filters_are(
    saved: Path, model: dict[str, object], said: str
) -> None:
    assert introduction(saved, model, "bank").endswith(said)
    assert "filter" not in introduction(saved, model)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"filter": {"name": "os.system"}}, "os.system"),
        ({"model": {"_target_": "os.system"}}, "_target_"),
        ({"tokens": {"front_end": "os.system"}}, "os.system"),
        ({"prep": "${oc.env:HOME}", "recipe": "../x"}, "leaves the folder"),
        ({"model": {"dim": 24, "layers": 1, "heads": 2}}, "a different architecture"),
    ],
)
def test_a_config_names_settings_that_fit_the_weights_and_never_code(
    change: dict[str, object], named: str, saved: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(saved, tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump(config | change))
    with pytest.raises(CheckpointError, match=named):
        spaudio.load(other)


def test_what_cannot_be_saved_is_named(own_run: Path, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pretrained encoder; leave base out"):
        spaudio.load(saved, base="owner/encoder")
    with pytest.raises(ConfigError, match="model exists"):
        spaudio.load(own_run).save_pretrained(saved)
    with pytest.raises(CheckpointError, match=r"no report\.json .*finish the run first"):
        spaudio.load(make_untrained_run(tmp_path)).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    other = shutil.copytree(saved, tmp_path / "other")
    (other / "report.json").unlink()
    with pytest.raises(CheckpointError, match=r"other is a saved model, but its report\.json is"):
        spaudio.load(other)
