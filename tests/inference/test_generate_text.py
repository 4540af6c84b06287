"""``spaudio generate`` on a run that was never trained."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from spaudio.cli import main
from spaudio.errors import CheckpointError, ConfigError, DataError
from spaudio.experiment.build import build_language_model
from spaudio.experiment.compose import compose
from spaudio.experiment.load import load_classifier, load_language_model
from spaudio.experiment.run_folder import create_run_folder
from spaudio.experiment.settings import TextSettings
from spaudio.inference.generate_text import generate_text
from spaudio.model.generate import generate
from spaudio.text.corpus import ALPHABET, decode, encode
from spaudio.training.checkpoint import save_checkpoint
from tests import RECIPES
from tests.fixtures.tiny_run import make_untrained_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    settings = compose(
        RECIPES / "text8",
        ["preset=debug", "context=16", "eval.stride=8", "filter=depthwise", f"runs={tmp_path}"],
    )
    assert isinstance(settings, TextSettings)
    model = build_language_model(settings)
    for weight in model.parameters():
        weight.data.mul_(4)
    folder = create_run_folder(settings)
    save_checkpoint(folder / "checkpoints", "best", 1, model.state_dict())
    return folder


def test_positions_beyond_the_context_are_not_read(tmp_path: Path) -> None:
    overrides = ["context=16", "eval.stride=8", "model.positions=learned", "model.max_tokens=64"]
    settings = compose(RECIPES / "text8", ["preset=debug", *overrides, f"runs={tmp_path}"])
    assert isinstance(settings, TextSettings)
    model, folder = build_language_model(settings), create_run_folder(settings)
    drawn = []
    for epoch in (1, 2):
        save_checkpoint(folder / "checkpoints", "best", epoch, model.state_dict())
        drawn.append(generate_text(folder, "the cat", 40, temperature=0))
        assert model.encoder.learned is not None
        model.encoder.learned.weight.data[16:] *= 100
    assert drawn[0] == drawn[1]


def cli(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(arguments)
    return capsys.readouterr().out


def test_the_command_continues_the_prompt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["generate", str(run), "--prompt", "the cat", "--length", "40"]
    drawn = cli([*base, "--seed", "3", "--top-k", "5"], capsys)
    assert drawn.startswith("the cat")
    assert len(drawn) == 7 + 40 + 1
    assert set(drawn[:-1]) <= set(ALPHABET)
    assert cli([*base, "--seed", "3", "--top-k", "5"], capsys) == drawn
    assert cli([*base, "--seed", "4", "--top-k", "5"], capsys) != drawn
    greedy = cli([*base, "--temperature", "0"], capsys)
    assert greedy == cli([*base, "--temperature", "0", "--seed", "9"], capsys)
    assert greedy == cli([*base, "--top-k", "1", "--seed", "9"], capsys)
    prompt = torch.from_numpy(encode(b"the cat").astype("int64")).unsqueeze(0)
    model = load_language_model(run)
    uncached = generate(model, prompt, 40, temperature=0, context=16, cached=False)
    assert greedy[7:-1] == decode(uncached[0].tolist())


@pytest.mark.parametrize("buffered", [True, False])
def test_a_closed_pipe_ends_the_command(
    buffered: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    # As with PYTHONUNBUFFERED, where nothing is left to be flushed.
    raw = open(writer, "wb", buffering=-1 if buffered else 0)  # noqa: SIM115
    with io.TextIOWrapper(raw, write_through=not buffered) as closed:
        monkeypatch.setattr("sys.stdout", closed)
        with pytest.raises(SystemExit, match="141"):
            main(["generate", str(run), "--length", "4"])


def test_what_the_user_can_mend_is_named(run: Path) -> None:
    with pytest.raises(DataError, match=r"'!', 'T', 'é'; .*lower-case"):
        generate_text(run, "The café!", 3)
    with pytest.raises(ConfigError, match="prompt is empty"):
        generate_text(run, "", 3)
    with pytest.raises(SystemExit, match=r"^error: temperature .*got -1.0$"):
        main(["generate", str(run), "--temperature", "-1"])
    with pytest.raises(SystemExit, match=r"^error: .*: there is no such run"):
        main(["generate", str(run / "none")])


def test_a_run_of_another_kind_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="run of a classifier"):
        generate_text(make_untrained_run(tmp_path), "a", 3)
    with pytest.raises(CheckpointError, match="does not classify audio"):
        load_classifier(run)
