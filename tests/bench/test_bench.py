"""Each benchmark writes its report and prints its table; user errors are one line."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from spaudio.bench import data_cost, export_cost, filter_cost, growth, step_cost
from spaudio.bench.__main__ import main
from spaudio.bench.harness import describe
from spaudio.bench.peers import __main__ as peers
from spaudio.bench.peers import ours
from spaudio.bench.peers.turns import Turns, run_sides, run_until
from spaudio.bench.shapes import Shape
from spaudio.errors import ConfigError, SpaudioError
from spaudio.filters import filterbank
from tests import RECIPES, ROOT
from tests.fixtures.tiny_audio import make_fsdd

FSDD = str(RECIPES / "fsdd")


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bench(name: str, *arguments: str) -> list[dict[str, Any]]:
    main([name, *arguments, "--rounds", "1", "--threads", "1"])
    rows: list[dict[str, Any]] = json.loads(Path(f"runs/bench_{name}.json").read_text())["rows"]
    assert {row["rounds"] for row in rows} == {1}
    return rows


def test_filters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = Shape("tiny", 1, 32, 8, ((4, 4), (2, 3)))
    depthwise = Shape("depthwise", 2, 16, 8, ((8, 3),), depthwise=True)
    monkeypatch.setattr(filter_cost, "SHAPES", (tiny, depthwise))
    monkeypatch.setattr(filter_cost, "peak_extra_bytes", lambda *_: 2**20)  # starts processes
    rows = bench("filters")
    assert [row["pass"] for row in rows[:2]] == ["forward", "forward+backward"]
    assert rows[0]["times_faster_than_reference"] == 1
    assert rows[1]["peak_extra_mib"] == 1
    assert rows[1]["gbytes"] is None
    assert [row["backend"] for row in rows[-4:]] == ["reference", "reference", "cpu", "cpu"]
    for row, signals in zip(rows[-4:], (2, 5, 2, 5), strict=True):
        assert row["gbytes"] * row["seconds"] == pytest.approx(1e-9 * signals * 2 * 16 * 8 * 4)
        assert row["share_of_copy"] > 0
    printed = capsys.readouterr().out
    assert "| 1, 32, 8 | 4·4 + 2·3 | forward | reference |" in printed
    assert "| 2, 16, 8 | depthwise, 3 taps | forward | cpu |" in printed


def test_backends_of_a_depthwise_filter_compute_the_same() -> None:
    shape = Shape("depthwise", 2, 16, 8, ((8, 3),), depthwise=True)
    for native, by_torch in zip(shape.step("cpu")(), shape.step("reference")(), strict=True):
        torch.testing.assert_close(native, by_torch)
    torch.testing.assert_close(shape.forward("cpu")(), shape.forward("reference")())


def test_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Shape("base", 1, 32, 8, ((10, 5),))
    monkeypatch.setattr(growth, "BASE", base)
    monkeypatch.setattr(growth, "VALUES", {"taps": (4, 5), "batch": (1, 2)})
    monkeypatch.setattr(growth, "peak_extra_bytes", lambda *_: 2**20)  # starts processes
    rows = bench("growth")
    assert [(row["axis"], row["value"]) for row in rows] == [
        ("taps", 4), ("taps", 5), ("batch", 1), ("batch", 2),
    ]  # fmt: skip
    assert Path("runs/bench_growth.png").is_file()
    Path("mine.png").write_text("mine")  # the chart would stand there
    with pytest.raises(SystemExit, match=r"error: .*mine\.png"):
        main(["growth", "--output", "mine.json"])
    assert Path("mine.png").read_text() == "mine"
    for taps in (4, 5):
        x, (kernels,), gains, _ = growth.shape_of("taps", taps).inputs()
        expected = filterbank(x, [kernels], gains)
        torch.testing.assert_close(growth.filterbank_by_fft(x, kernels, gains), expected)


@pytest.mark.parametrize(
    ("threads", "lanes", "said"),
    [(2, 16, "2 threads, vectors of 16 floats"), (1, None, "1 thread, without the native kernel")],
)
def test_a_table_names_the_kernel(threads: int, lanes: int | None, said: str) -> None:
    machine = {"processor": "P", "threads": threads, "vector_lanes": lanes, "torch": "2"}
    row = {"seconds": 1.0, "rounds": 3}
    assert f"P, {said}, torch 2" in describe({"machine": machine, "rows": [row]}, {"ms": "{ms}"})


def test_generation(capsys: pytest.CaptureFixture[str]) -> None:
    rows = bench("generate", "--context", "8", "--filter", "none", "--filter", "depthwise")
    assert [row["name"] for row in rows] == ["none", "depthwise"]
    for row in rows:
        assert row["length"] == row["context"] == 8
        speeds = row["cached_per_second"] / row["full_per_second"]
        assert row["times_faster"] == pytest.approx(speeds)
    assert capsys.readouterr().out.count("| 4 x 128 | rotary | 8 |") == 2


def test_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Any] = []
    make_steps = step_cost.make_steps

    def note_batches(settings: Any, model: Any, objective: Any, batches: Any) -> Any:
        timed[:] = batches
        return make_steps(settings, model, objective, batches)

    monkeypatch.setattr(step_cost, "make_steps", note_batches)
    data = f"source={make_fsdd(tmp_path / 'fsdd', digits=range(3), clips=6)}"
    filter = "multiscale,filter.scales=[[3,2],[1,5]],model.filter_layers=[0]"
    # Settings may also stand after options.
    none, other = bench("step", FSDD, "preset=debug", "--filter", "none", "--filter", filter, data)
    assert none["times_the_first"] == 1
    assert other["parameters"] - none["parameters"] == 3 * 2 + 1 * 5 + 4  # taps and gains
    assert other["seconds"] / none["seconds"] == pytest.approx(other["times_the_first"])
    report = json.loads(Path("runs/bench_step.json").read_text())
    shape = report["shape"]
    # Kernels and gains, in one layer; the peak is in multiplications and additions per second.
    tokens = sum(batch.padding_mask.numel() for batch in timed) / len(timed)
    work = 4 * 2 * tokens * shape["dim"] * (3 * 3 + 1 * 6)
    added = other["seconds"] - none["seconds"]
    ideal = work / (1e9 * report["peak_gflops"])
    assert none["times_its_multiply_adds"] is None
    assert other["times_its_multiply_adds"] == pytest.approx(added / ideal)
    assert shape["batch"] == sum(len(batch.tokens) for batch in timed) / len(timed) < 32
    assert 0 <= shape["padding"] < 1
    printed = capsys.readouterr().out
    assert f"| {filter} |" in printed
    assert f"{shape['padding']:.1%} of them padding" in printed
    # A filter's own settings take precedence over those of all.
    rows = [f"--filter=bank{more}" for more in ("", ",filter.kernel_size=2")]
    four, two = bench("step", FSDD, "preset=debug", "filter.kernel_size=4", *rows, data)
    assert four["parameters"] > two["parameters"]


def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds, random = tmp_path / "sounds, all (1 s)", np.random.default_rng(0)
    for kind in range(2):
        (sounds / str(kind)).mkdir(parents=True)
        for clip in range(10):
            noise = random.standard_normal(8000) / 4
            ending = "wav" if clip else "WAV"
            soundfile.write(sounds / str(kind) / f"{clip}.{ending}", noise, 16_000)
    forgotten: list[Path] = []
    forget = data_cost._forget

    def forget_and_note(files: list[Path]) -> None:
        forget(files)
        forgotten.extend(files)

    monkeypatch.setattr(data_cost, "_forget", forget_and_note)
    for option in ([], ["--cold"]):
        rows = bench("data", str(RECIPES / "folder"), str(sounds), *option)
        # Before each of two rounds, of which one is a warm-up.
        assert len(forgotten) == bool(option) * 2 * len(rows) * 20
    assert [row["what"] for row in rows][:2] == ["ours", "librosa"]
    assert rows[0]["times_ours"] == 1
    assert all(row["peak_mib"] > 10 for row in rows)
    assert {row["files"] for row in rows} == {20}
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match=r"error: .*resample nothing"):
        main(["data", str(RECIPES / "folder"), str(tmp_path / "none")])


def test_a_profile_tells_the_filter_from_other_convolutions(tmp_path: Path) -> None:
    data = f"source={make_fsdd(tmp_path / 'fsdd', digits=range(3), clips=6)}"
    parts = {}
    for name in ("none", "depthwise"):
        rows = bench("profile", FSDD, "preset=debug", "tokens.stem=none", data, f"filter={name}")
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        parts[name] = {row["kind"]: row["operations"] for row in rows}
    none, depthwise = parts["none"], parts["depthwise"]
    assert "filter" in depthwise.keys() - none.keys()
    # The stem is left out, so that every convolution, forward and backward, is the filter's.
    assert "convolutions" not in depthwise
    for kind in ("matrix products", "attention", "norms", "activations"):
        assert depthwise[kind] == none[kind]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "."], "not a run's folder"),
        (["data", str(RECIPES / "folder"), "nowhere"], "nowhere: no such folder"),
        (["data", str(RECIPES / "text8"), "."], "text8 has no audio files; give recipes/folder"),
        (["step", "nowhere"], "nowhere is not a recipe's folder"),
        (["step", str(RECIPES / "fsd")], "unknown recipe 'fsd'; did you mean fsdd"),
        (["step", FSDD, "--filter", "bonk"], "unknown filter 'bonk'"),
        (["step", FSDD, "filter=bank"], "filter=bank: name the filters to compare with --filter"),
        (["step", FSDD, "trainer.epoch=3"], "trainer.epoch"),
        (["step", FSDD, "--filter", "none,tokens.stack=4"], r"stack=4 may change"),
        (["step", FSDD, "trainer.device=cuda"], "trainer.device=cuda: the benchmark runs on the C"),
        (["profile", FSDD, "trainer.device=cuda"], "trainer.device=cuda: the benchmark runs on t"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", ".", "--filter", "bank"], "are for untrained models"),
        (["generate", ".", "--context", "64"], "are for untrained models"),
        (["growth", "--output", "cost.png"], "--output names the JSON file"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_named_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spaudio.bench.growth.measure", lambda *_: pytest.fail("measured"))
    Path("runs/bench_growth.png").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"error: .*bench_growth\.png is a folder"):
        main(["growth"])
    shutil.rmtree("runs")
    Path("runs").touch()
    with pytest.raises(SystemExit, match=r"error: the folder .*runs cannot be made"):
        main(["growth"])


def test_gradients_that_are_accumulated_are_refused(tmp_path: Path) -> None:
    data = f"source={make_fsdd(tmp_path / 'fsdd', digits=range(3), clips=6)}"
    with pytest.raises(SystemExit, match=r"error: trainer\.accumulate=2: .* whole batches"):
        main(["step", FSDD, "preset=debug", data, "trainer.accumulate=2"])


def test_a_missing_package_is_named_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("spaudio.bench.growth.measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit, match=r"error: .*matplotlib.*recipes"):
        main(["growth"])


def test_a_pretrained_step_takes_only_settings_of_the_filter() -> None:
    """The batches depend on the encoder and the layers that are adapted."""
    own = "depthwise,model.adapt_layers=[1]"
    given = ["model=pretrained", "model.source=somewhere", "adapt=filters"]
    with pytest.raises(SystemExit, match=r"error: .*adapt_layers=\[1\] may change the batches"):
        main(["step", FSDD, *given, "--filter", "depthwise", "--filter", own])


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (main, ["step", FSDD, "--rounds", "0"], "'0'; expected a whole number of at least 1"),
        (main, ["growth", "--threads", "0"], "'0'; expected a whole number of at least 1"),
        (peers.main, ["huggingface", "--python", "python", "--rounds", "0"], "at least 1"),
        (peers.main, ["asteroid-sinc", "--python", "python", "seed=1"], "leave seed=1 out"),
        (peers.main, ["asteroid-sinc", "--python", "python", "--until", "1"], "leave --until out"),
        (peers.main, ["huggingface", "--python", "python", "--until", "90"], "at most 1"),
    ],
)
def test_wrong_arguments_are_refused(
    run: Callable[[list[str]], None],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(arguments)
    assert message in capsys.readouterr().err


SIDE = """
import sys
from spaudio.bench.peers.turns import Turns

steps, slope = 0, float(sys.argv[1])
turns = Turns(2)
turns.evaluate = lambda: steps * slope
print("a library prints")
turns.prepared = 100.0
going = turns.step()
while going:
    steps += 1
    assert steps < 20, "trained too far"
    going = turns.step(32)
open(f"ended {slope}", "w").close()
"""


def test_sides_train_until_an_accuracy_is_reached() -> None:
    fast, slow, broken = ([sys.executable, "-c", SIDE, slope] for slope in ("0.125", "0.0625", "x"))
    points = run_until([fast, slow], 0.5, 1e9, turns=1)
    assert [[accuracy for _, accuracy in side] for side in points] == [
        [0.25, 0.5],
        [0.125, 0.25, 0.375, 0.5],
    ]
    assert all(side == sorted(side) for side in points)  # seconds are added up
    assert all(100 < seconds < 200 for side in points for seconds, _ in side)
    assert Path("ended 0.125").is_file()  # by itself, not killed
    assert [len(side) for side in run_until([fast, slow], 0.5, 0, turns=1)] == [1, 1]
    told = run_sides([fast, slow], rounds=2)
    assert [[turn["examples"] for turn in side] for side in told] == [[64, 64], [64, 64]]
    with pytest.raises(SpaudioError, match="has ended"):
        run_sides([fast, broken], rounds=1)


def test_an_environment_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("cat"))  # our side
    with pytest.raises(SystemExit, match=r"error: nowhere/python cannot be started \(No such file"):
        peers.main(["huggingface", "--python", "nowhere/python"])


def test_our_side_quotes_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "a, b (c)"
    checkout.symlink_to(ROOT)
    found = []

    def stop(settings: Any, _: Path) -> None:
        found.append(settings.source)
        raise InterruptedError

    monkeypatch.setattr(ours, "RECIPE", checkout / "recipes" / "fsdd")
    monkeypatch.setattr(ours, "open_task", stop)
    with pytest.raises(InterruptedError):
        ours.train_recipe(Turns(1), [])
    assert found == [str(checkout / "recipes" / "fsdd" / "recordings")]


def test_export(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise ConfigError("not installed")

    monkeypatch.setattr(export_cost, "export_run", unavailable)  # exporting takes long
    monkeypatch.setattr(export_cost, "_COLD_STARTS", 1)
    monkeypatch.setattr("subprocess.run", lambda *_, **options: None)
    rows = bench("export", str(own_run))
    forms = [(row["batch"], row["form"]) for row in rows]
    alone = ["eager", "predict", "librosa"]
    assert forms == [*((1, form) for form in alone), (8, "eager"), (8, "librosa"), (1, "cold")]


def test_a_cold_start_has_the_threads_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def start(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        threads.append(env["OMP_NUM_THREADS"])

    monkeypatch.setattr("torch.get_num_threads", lambda: 5)
    monkeypatch.setattr("subprocess.run", start)
    row = export_cost._cold(Path("run"), Path("clip.wav"), 1.0)
    assert threads == ["5"] * row["rounds"]
