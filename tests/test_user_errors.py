"""Every shape of user error, through the command line: one line on what was given, what is
possible and what to do; code 1, no traceback, and no run left behind.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from spaudio import cli
from spaudio.bench.__main__ import main as measure
from spaudio.experiment.compose import quoted
from spaudio.experiment.entry import main
from tests import RECIPES, ROOT
from tests.conftest import RunRecipe, draw_nothing
from tests.fixtures.broken import break_torchaudio
from tests.fixtures.tiny_audio import RATE, make_class_folders, tone

Command = Callable[..., str]
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def command(tmp_path: Path, run_recipe: RunRecipe) -> Command:
    """Runs a recipe, which must end with code 1, and returns its one line of error."""

    def run(recipe: str, *overrides: str) -> str:
        done = run_recipe(recipe, *overrides)
        assert done.code == 1
        (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in done.err
        assert not list(tmp_path.glob("runs/*/*"))
        return error

    return run


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Three classes of a few clips."""
    return make_class_folders(tmp_path / "sounds", groups=3, clips=2)


def says(message: str, *words: str) -> None:
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


def refused(arguments: list[str], *words: str) -> None:
    """A sub-command ends with one line that says the words."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    message = str(ended.value)
    assert message.startswith("error: ")
    assert message.isprintable()
    says(message, *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("filter=bnak", ["unknown filter 'bnak'", "did you mean bank?", "haar"]),
        ("tokens=mfcc", ["unknown tokens 'mfcc'", "known: spectrogram"]),
        ("model.widht=3", ["unknown setting 'model.widht'", "did you mean"]),
        ("trainer.epochs=many", ["trainer.epochs=many", "a whole number"]),
        ("trainer.epochs=2.5", ["trainer.epochs=2.5", "a whole number"]),
        ("trainer.epochs=null", ["trainer.epochs=null", "a value, not null"]),
        ("trainer.epochs=0", ["trainer.epochs must be positive; got 0"]),
        ("trainer.batch_size=0", ["trainer.batch_size must be positive; got 0"]),
        ("optim.lr=nan", ["optim.lr=nan", "a finite number"]),
        ("skip_bad=perhaps", ["skip_bad=perhaps", "true or false"]),
        ("validation=0.1", ["validation=0.1"]),
        ("seed=-1", ["seed must lie in [0, 2**32); got -1"]),
        ("seed=4294967296", ["seed must lie in [0, 2**32)"]),
        ("optim.lr=1e300", ["optim.lr=1e+300", "below 3.4e38"]),
        ("trainer.batch_size=1000000000000", ["trainer.batch_size", "below 2**31"]),
        ("trainer.accumulate=99", ["trainer.accumulate must be at most trainer.batch_size"]),
        ("trainer.workers=1000", ["trainer.workers must be at most 256"]),
        ("model.layers=1000000", ["model.layers must be at most 10,000"]),
        ("seed=[1", ["cannot read 'seed=[1'", "expected key=value"]),
        ("~seed", ["~seed: settings cannot be added or removed"]),
        ("prep=speech", ["prep=speech: there is no such script", "folder", "fsdd", "notes"]),
        ("resume=runs/none", ["runs/none: there is no such run; check the path"]),
    ],
)
def test_what_stands_on_the_command_line(command: Command, override: str, words: list[str]) -> None:
    says(command("folder", override), *words)


def test_a_range_without_an_end(run_recipe: RunRecipe) -> None:
    says(run_recipe("folder", "-m", "filter=glob(*)").err, "list the values, filter=a,b,c")


def test_missing_data(command: Command) -> None:
    says(command("folder"), "source= is required")
    says(command("folder", "source=nowhere"), "source='nowhere'", "no such file or folder")
    says(command("folder", "source=[a]"), "source=[a]", "expected")


def test_unknown_classes(command: Command) -> None:
    says(command("notes", "families=[organ,theremin]"), "theremin", "piano")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["filter=bank", "filter.kernel_size=0"], ["kernel_size=0", "at least 1"]),
        (["tokens.sample_rate=100"], ["error: tokens.sample_rate=100", "1000 to 768000 Hz"]),
        (["tokens.f_max=9000"], ["9000", "sample_rate/2 = 8000"]),
        (["tokens.front_end=pretrained"], ["set by the choice of tokens; give tokens=NAME"]),
        (["segments.seconds=0.001"], ["segments.seconds=0.001 s is shorter than a frame (0.01 s)"]),
        (
            ["segments.seconds=1", "segments.hop=0.009"],
            ["segments.hop=0.009 s is shorter than a frame"],
        ),
        (["augment.crop=0.001"], ["augment.crop=0.001 s is shorter than a frame (0.01 s)"]),
        (["tokens.spectrogram.n_mels=8"], ["augment.mel_mask=10 would hide whole clips", "=2"]),
        (["model.dim=2000000000", "model.heads=1"], ["the model cannot be built", "smaller sizes"]),
        (["filter=bank", "filter.num_filters=2000000000"], ["the model cannot be built"]),
        (["group_regex='(x\\d+)'"], ["finds no group in 18 of 18 paths"]),
        (["validation.fraction=2", "valid_fraction=0"], ["fraction"]),
    ],
)
def test_settings_out_of_range(
    command: Command, sounds: Path, overrides: list[str], words: list[str]
) -> None:
    says(command("folder", "preset=debug", f"source={sounds}", *overrides), *words)


def test_a_class_with_one_clip(command: Command, sounds: Path) -> None:
    (sounds / "rare").mkdir()
    soundfile.write(sounds / "rare" / "a.wav", tone(0, np.random.default_rng(0)), RATE)
    error = command("folder", f"source={sounds}")
    says(error, "classes with fewer than 3 clips: rare", "add clips, or remove the class")


def test_bad_clips(command: Command, sounds: Path) -> None:
    (sounds / "hum" / "void.wav").touch()
    error = command("folder", f"source={sounds}")
    says(error, "1 of 19 clips cannot be used", "bad_clips.txt", "skip_bad=true")


def test_bad_clips_that_leave_one_class(command: Command, sounds: Path) -> None:
    for name in ("hiss", "sweep"):
        for path in (sounds / name).rglob("g*.*"):
            path.write_bytes(b"")
    error = command("folder", f"source={sounds}", "skip_bad=true")
    says(error, "training clips of one class only (hum)", "skip_bad has left out")


def test_a_backslash_in_a_name(
    command: Command, run_recipe: RunRecipe, sounds: Path, tmp_path: Path
) -> None:
    """A clip's is refused, as a manifest is for every system; those of folders are taken."""
    clip = sounds / "hum" / "back\\slash.wav"
    shutil.copy(sounds / "hum" / "g0_0.wav", clip)
    says(command("folder", f"source={sounds}"), r"back\\slash.wav", "rename a file")
    clip.unlink()
    runs = tmp_path / "o\\dd"
    small = ["preset=debug", "trainer.epochs=1", "filter=none", "run_id=a"]
    done = run_recipe("folder", *small, f"source={sounds}", f"runs={runs}")
    assert done.code == 0, done.err
    (runs / "folder" / "a" / "report.json").unlink()
    for given in (f"{runs}/folder/a", quoted(runs / "folder" / "a")):
        assert run_recipe("folder", f"resume={given}").code == 0


def test_a_torchaudio_that_does_not_match_torch(
    command: Command, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_torchaudio(monkeypatch, OSError)
    error = command("folder", "preset=debug", f"source={sounds}")
    says(error, "torchaudio cannot be imported with torch", "undefined symbol", "requirements")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run whose settings hardly fit its data: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    sounds = make_class_folders(folder / "sounds", groups=3, clips=2)
    arguments = [
        "preset=debug", "trainer.epochs=1", "trainer.batch_size=1", "run_id=a", "filter=bank",
        "filter.num_filters=2", "filter.kernel_size=300", "augment.mixup=0.2", "augment.crop=0.1",
        "model.positions=learned", f"source={sounds}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        patch.chdir(folder)
        draw_nothing(patch)
        main(str(RECIPES / "folder" / "run.py"), arguments)
    return folder / "runs" / "folder" / "a", said.getvalue()


@pytest.fixture
def finished(trained: tuple[Path, str]) -> Path:
    return trained[0]


def test_a_batch_of_one_trains(finished: Path) -> None:
    assert (finished / "report.json").is_file()


def test_a_kernel_longer_than_the_clip_is_warned_of(trained: tuple[Path, str]) -> None:
    says(trained[1], "the kernels of filter=bank reach 150 tokens", "Give shorter kernels")


def test_positions_that_training_never_sees_are_warned_of(trained: tuple[Path, str]) -> None:
    says(trained[1], "model.positions=learned", "at most 0.1 s at a time", "augment.crop=0")


def test_clips_of_another_sample_rate_are_warned_of(trained: tuple[Path, str]) -> None:
    says(trained[1], "18 of 18 clips have too low a sample rate", "tokens.sample_rate=8000")


@pytest.fixture
def altered(finished: Path, tmp_path: Path) -> Path:
    """The same run, unfinished, with the config.yaml of another architecture."""
    run = tmp_path / "elsewhere"
    shutil.copytree(finished, run)
    (run / "report.json").unlink()
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"]["dim"] = 24
    settings["data"] = str(finished.parents[2] / "data")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    return run


def test_a_checkpoint_of_another_architecture(
    command: Command, altered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.dim=24", "was trained with model.dim=16", "new run"]
    says(command("folder", f"resume={altered}"), *words)
    words = ["a different architecture", "project.weight is (16, ", "where (24, ", "new run"]
    refused(["filters", str(altered)], *words)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    """Said before the work begins: the run's folder has not been looked at yet."""
    there, link, clip = tmp_path / "there.md", tmp_path / "link", tmp_path / "clips" / "a.wav"
    clip.parent.mkdir()
    for file in (there, clip, tmp_path / "b-curves.png"):
        file.write_text("kept")
    link.symlink_to(there)
    for output, word in (
        (there / "table.md", "there is no folder"),
        (tmp_path / "new" / "table.md", "there is no folder"),
        (tmp_path, "is a folder"),
        (link, "is a symbolic link"),
        (there, "exists; name another file, or replace it with --force"),
        (tmp_path / "b.md", "b-curves.png exists"),  # the figure beside it
        (tmp_path / ("n" * 300), "has 300 bytes, and may have 255; give a shorter one"),
        (Path("/dev/null"), "is a device"),
        (Path("/proc/x"), "cannot be written"),
    ):
        if output.parent == Path("/proc") and not output.parent.is_dir():
            continue
        refused(["compare", "no-run", "--output", str(output)], "--output", word)
        if "exists" not in word:
            refused(["compare", "no-run", "--csv", str(output), "--force"], "--csv", word)
    assert not (tmp_path / "new").exists()
    refused(["compare", "no-run", "--output", str(there), "--force"], "no such run; check")
    # What a command reads is never replaced, under whatever name.
    (tmp_path / "hard.png").hardlink_to(clip)
    for output in (clip, tmp_path / "hard.png"):
        for given in ([str(clip)], [str(clip.parent), str(clip)]):
            predict = ["predict", "no-run", *given, "--force", "--output", str(output)]
            refused(predict, "would replace what the command reads")
    for given in (["evaluate", "no-run", "--data"], ["detect", "no-run"], ["explain", "no-run"],
                  ["export", "no-run", "--format", "onnx", "--clips"]):  # fmt: skip
        command = [*given, str(clip), "--output"]
        refused([*command, str(tmp_path / "b-curves.png")], "b-curves.png exists; name another")
        refused([*command, str(tmp_path / "hard.png"), "--force"], "would replace what the command")
    (tmp_path / "model.onnx").touch()
    refused(["export", str(tmp_path), "--format", "onnx"], "model.onnx exists; name another")
    refused(["compare", str(there), "--csv", str(there), "--force"], "would replace")
    new = str(tmp_path / "new.md")
    refused(["compare", "no-run", "--csv", new, "--output", new], "name two files")
    refused(["study", str(there), "--output", str(there), "--force"], "would replace")
    assert there.read_text() == clip.read_text() == "kept"


def test_what_the_terminal_shows_is_printable(tmp_path: Path, command: Command) -> None:
    refused(["filters", str(tmp_path / "a\n\x1b[31m")], r"a\n\x1b[31m: there is no such run")
    folder = quoted("a\x1b[31m")
    says(command("folder", f"resume={folder}"), r"a\x1b[31m: there is no such run")
    bench = ["generate", "a\n\x1b[31m", "--output", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit, match=r"error: a\\n\\x1b\[31m: there is no such run"):
        measure(bench)


def test_options_of_commands_are_checked_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "no-run")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == version("spaudio")
    study = str(RECIPES / "study" / "study.yaml")
    refused(["study", study, "--only", "none", "bank"], "'bank': expected", "--only a,b")
    refused(["study", study, "--seeds=a"], "--seeds=a", "whole numbers")
    for number in ("2", "-1", "nan"):
        refused(["predict", run, "a.wav", f"--unsure={number}"], "from 0 to 1")
    refused(["predict", run, "a.wav", "--top", "0"], "--top 0; expected at least 1")
    device = ["listen", run, "--file", "a.wav", "--device", "1"]
    refused(device, "--device 1 has no effect with --file")
    for command in ("predict", "detect", "explain"):
        refused([command, run, "a.wav", "--window", "0"], "--window 0; expected a number of sec")
    refused(["listen", run, "--hop", "nan"], "--hop nan; expected")
    refused(["detect", run, "a.wav", "--threshold", "1.5"], "--threshold 1.5; expected a prob")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.big_dog.explained.png").touch()
    refused(["explain", run, "x/a.wav", "--label", "big/dog"],
            "the default --output a.big_dog.explained.png exists; name another")  # fmt: skip
    with pytest.raises(SystemExit, match="no-run"):  # the name without a label is another
        cli.main(["explain", run, "x/a.wav"])


def test_errors_in_the_form_of_options_need_no_torch(tmp_path: Path) -> None:
    run = str(tmp_path / "no-run")
    commands = [
        ["train"], ["predict", run, "a.wav", "--top", "0"], ["listen", run, "--unsure", "2"],
        ["predict", run, "a.wav", "--output", str(tmp_path)], ["detect", run, "a", "--hop", "0"],
        ["explain", run, "a.wav", "--output", str(tmp_path / "no" / "x.png")],
        ["export", run, "--format", "onnx", "--output", str(tmp_path)],
    ]  # fmt: skip
    code = (
        "import sys\n"
        "from spaudio import cli\n"
        f"for command in {commands!r}:\n"
        "    try:\n"
        "        cli.main(command)\n"
        "    except SystemExit as ended:\n"
        "        assert str(ended).startswith('error: '), command\n"
        "    assert 'torch' not in sys.modules, command\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_output_that_the_encoding_lacks_is_escaped() -> None:
    table = str(ROOT / "recipes" / "text8" / "study.csv")
    command = [sys.executable, "-m", "spaudio.cli", "compare", table]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xb1" in done.stdout  # ±


def test_words_after_train_that_are_no_settings(tmp_path: Path) -> None:
    refused(["train"], "name a folder of sounds: spaudio train DIR")
    refused(["train", "d1", "d2"], "'d2': expected one folder, then settings")
    refused(["train", "seed=1", "d1"], "'d1': expected one folder, then settings")
    refused(["train", "d1", "--modle=tiny"], "--modle=tiny: settings have no dashes: modle=tiny")
    refused(["train", "d1", "-m", "--seed", "1"], "--seed: settings have no dashes: seed=VALUE")
    refused(["train", "d1", "source=d2"], "both d1 and source=d2 name the source; leave one of")


def test_runs_that_are_none(
    finished: Path, altered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["filters", str(tmp_path)], ["is not a run's folder"]),
        (["compare", str(tmp_path)], [str(tmp_path)]),
        (["compare", str(altered)], [str(altered), "resume="]),
    ):
        refused(arguments, *words)
    (tmp_path / "other").mkdir()
    cli.main(["compare", str(finished), str(altered), str(tmp_path / "other")])
    said = capsys.readouterr().err
    assert f"{altered} is not finished and is left out" in said
    assert f"{tmp_path / 'other'} is not a run and is left out" in said


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "cannot be read"),
        ("a: &a [1]\nb: *a", "an alias"),
        ("[" * 99, "deeper than 50"),
        ("a: " + "x" * (1 << 20), "larger than 1,048,576 bytes"),
        ("a: 1\na: 2", "it has a twice"),
        ("- 1", "not a mapping"),
        ("a: 1", "filter.name"),
    ],
)
def test_a_damaged_config_of_a_run(altered: Path, text: str, word: str) -> None:
    (altered / "config.yaml").write_text(text, encoding="utf-8")
    refused(["filters", str(altered)], str(altered / "config.yaml"), word)
