"""Runs are grouped by the settings that differ, and averaged over seeds."""

import math
import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from spaudio.errors import DataError
from spaudio.report.comparison import compare, doubts, group_runs
from spaudio.report.records import OF_DATA, OF_SETTING, Record
from spaudio.report.tables import show_rows

FACTS = {
    "recipe": "toy",
    "metric": "accuracy",
    "floor.svm": 0.5,
    "num_params": 1000,
    "filter_params": 10,
    "seconds.train": 7.0,
    "step_seconds": 0.1,
}


def run(accuracy: float, seed: int = 0, filter: str = "none", **settings: Any) -> Record:
    facts = {**FACTS, "seed": seed, "test.accuracy": accuracy, "test.macro_f1": accuracy - 0.1}
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Record("run", {"filter.name": filter, "optim.lr": 0.1, **named}, facts, [])


def test_seeds_are_grouped_and_the_settings_that_differ_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [run(0.70), run(0.80, seed=1), run(0.90, filter="bank", filter__num_filters=144)]
    none, bank = group_runs(runs)
    assert none.settings == {"filter.name": "none"}
    assert bank.settings == {"filter.name": "bank"}  # an option that only one filter has
    rows = compare([none, bank])
    assert rows[0] == {
        "setting": "filter=none", "seeds": "2", "test accuracy": "0.7500 ± 0.0707",
        "macro F1": "0.6500 ± 0.0707", "floor (SVM)": "0.5000 ± 0.0000", "parameters": "1,000",
        "of filters": "10", "train s": "7", "ms/step": "100",
    }  # fmt: skip
    assert rows[1]["test accuracy"] == "0.9000"
    show_rows(rows, "Runs")
    assert "0.7500 ± 0.0707" in capsys.readouterr().out
    show_rows([{"[b]old": "[/b]"}], "[/x]")  # not markup
    assert {"[/x]", "[b]old", "[/b]"} <= {
        part.strip() for part in re.split("[│┃\n]", capsys.readouterr().out)
    }
    assert [group.name for group in group_runs(runs[:2])] == ["toy"]
    # Neither the number of workers nor the device changes a result.
    here = run(0.7, trainer__workers=0, trainer__device="auto")
    there = run(0.8, seed=1, trainer__workers=2, trainer__device="cpu")
    assert [group.name for group in group_runs([here, there])] == ["toy"]
    # Folders are named by their last part, unless it is the same.
    sources = [run(0.7, source=f"/{folder}/sounds") for folder in "ab"]
    assert [group.name for group in group_runs(sources)] == ["source=/a/sounds", "source=/b/sounds"]
    for one, filter in zip(sources, ("none", "bank"), strict=True):  # the same clips at two places
        one.facts["samples_sha256"] = "same"
        one.settings["filter.name"] = filter
    assert [group.name for group in group_runs(sources)] == ["filter=none", "filter=bank"]


def test_tables_that_are_too_wide_for_a_terminal_are_transposed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = compare(group_runs([run(0.7), run(0.9, filter="bank")]))
    for is_terminal, columns, is_turned in (
        (True, 60, True),
        (True, 200, False),
        (True, 30, False),  # the transposed table is too wide, too
        (False, 60, False),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("rich.console.Console.is_terminal", is_terminal)
        show_rows(rows, "Test split")
        lines = capsys.readouterr().out.splitlines()
        assert any("filter=none" in line and "filter=bank" in line for line in lines) == is_turned
        assert any("0.7000" in line and "0.9000" in line for line in lines) == is_turned
        assert any("filter=none" in line and "0.7000" in line for line in lines) != is_turned


def test_options_at_their_default_are_left_out_beside_the_filter_s_name() -> None:
    banks = [run(0.7, filter="bank", filter__kernel_size=size) for size in (4, 8, 16)]
    # If no group names the filter, each must name its option.
    assert [group.name for group in group_runs(banks)] == [
        f"filter.kernel_size={size}" for size in (4, 8, 16)
    ]
    scales = [[36, 4], [36, 8], [36, 16], [36, 32]]
    others = [
        run(0.6),
        run(0.7, filter="depthwise", filter__kernel_size=16),
        run(0.7, filter="depthwise", filter__kernel_size=4),
        run(0.7, filter="multiscale", filter__scales=scales),
        run(0.7, filter="multiscale", filter__scales=[[9, 4]]),
    ]
    assert [group.name for group in group_runs([*banks, *others])] == [
        "filter=bank",
        "filter=bank, filter.kernel_size=8",
        "filter=bank, filter.kernel_size=16",
        "filter=none",
        "filter=depthwise, filter.kernel_size=16",
        "filter=depthwise",
        "filter=multiscale",
        "filter=multiscale, filter.scales=[[9, 4]]",
    ]


def test_a_setting_can_be_averaged_over_within_each_seed() -> None:
    accuracies = {(0, "ann"): 0.5, (0, "bob"): 0.7, (1, "ann"): 0.9, (1, "bob"): 0.7}
    runs = [run(accuracy, seed, speaker=who) for (seed, who), accuracy in accuracies.items()]
    assert [group.settings for group in group_runs(runs)] == [
        {"speaker": "ann"},
        {"speaker": "bob"},
    ]
    (group,) = group_runs(runs, over="speaker")
    assert group.settings == {}
    assert group.results("test.accuracy") == pytest.approx({"0": 0.6, "1": 0.8})
    (row,) = compare([group])
    assert (row["± over"], row["test accuracy"]) == ("seed", "0.7000 ± 0.1414")
    (row,) = compare(group_runs(runs[:2], over="speaker"))  # one seed: the spread over speakers
    assert (row["seeds"], row["± over"], row["test accuracy"]) == (
        "1",
        "speaker",
        "0.6000 ± 0.1414",
    )
    with pytest.raises(DataError, match=r"seed 1 .* no run with speaker=bob"):
        group_runs(runs[:-1], over="speaker")
    rates = [run(0.5, lr=lr, filter=name) for name, lr in (("none", 1), ("none", 2), ("bank", 1))]
    for record in rates:
        record.settings["optim.lr"] = record.settings.pop("lr")
    with pytest.raises(DataError, match=r"no run with optim.lr=2"):
        group_runs(rates, over="optim.lr")
    with pytest.raises(DataError, match=r"no run has a setting 'lr' to average over"):
        group_runs(rates, over="lr")


def test_rows_are_compared_with_the_first_one_run_by_run() -> None:
    none, bank = [0.70, 0.80, 0.60, 0.75], [0.72, 0.83, 0.61, 0.79]
    runs = [run(accuracy, seed) for seed, accuracy in enumerate(none)]
    runs += [run(accuracy, seed, "bank") for seed, accuracy in reversed([*enumerate(bank)])]
    first, second = (row["minus the first"] for row in compare(group_runs(runs)))
    assert first == "-"
    interval = ttest_rel(bank, none).confidence_interval(0.95)
    assert second == f"+0.0250 ({interval.low:+.4f} to {interval.high:+.4f})"
    # Only seeds that both have are pairs. Equal differences have no interval.
    rows = compare(group_runs([*runs[1:4], run(0.82, 1, "fir"), run(0.62, 2, "fir")]))
    assert rows[1]["minus the first"] == "+0.0200, 2 pairs"
    # Four folds share training clips, so the variance of a mean is s² (1/4 + 1/3).
    folds = [run(a, fold=k) for k, a in enumerate(none)]
    folds += [run(a, filter="bank", fold=k) for k, a in enumerate(bank)]
    (_, row) = compare(group_runs(folds, "fold"))
    half = (interval.high - interval.low) / 2 * (1 + 4 / 3) ** 0.5
    assert row["minus the first"] == f"+0.0250 ({0.025 - half:+.4f} to {0.025 + half:+.4f})"


@pytest.mark.parametrize("fact", OF_SETTING)
def test_seeds_on_changed_data_are_refused(fact: str) -> None:
    runs = [run(0.7), run(0.8, seed=1), run(0.8, seed=2)]
    for record, samples in zip(runs, ("a", "a", "b"), strict=True):
        record.facts[fact] = samples
    assert len(group_runs(runs[:2])) == 1
    with pytest.raises(DataError, match=r"(the data were|model.source was) changed between them"):
        group_runs(runs)


def test_the_interval_over_random_splits_counts_the_clips_they_share() -> None:
    """Unlike that of folds, their share of test clips does not depend on their number."""
    runs = [
        run(0.7 + 0.01 * split * (name == "bank"), filter=name, split=split)
        for name in ("none", "bank")
        for split in range(20)
    ]
    for one in runs:
        one.facts |= {"clips.test": 20, "clips.train": 70, "clips.valid": 10}
    (_, row) = compare(group_runs(runs, "split"))
    differences = 0.01 * np.arange(20)
    error = differences.std(ddof=1) * math.sqrt(1 / 20 + 20 / 80)
    half = float(t.ppf(0.975, 19)) * error
    expected = f"+0.0950 ({0.095 - half:+.4f} to {0.095 + half:+.4f})"
    assert row["minus the first"] == expected


def test_the_time_of_training_includes_pretraining() -> None:
    runs = [run(0.7), run(0.8, seed=1)]
    for one in runs:
        one.facts["pretrain.seconds"] = 5.0
    [row] = compare(group_runs(runs))
    assert row["train s"] == "12"


def test_seeds_are_always_averaged() -> None:
    with pytest.raises(DataError, match="--over seed: seeds are always averaged over"):
        group_runs([run(0.7), run(0.8, seed=1)], "seed")


def test_rows_that_were_tested_on_other_clips_are_announced() -> None:
    runs = [run(0.7), run(0.8, seed=1), run(0.9, filter="bank")]
    for one, split in zip(runs, "xxy", strict=True):
        one.facts["splits_sha256"] = split
    (said,) = doubts(group_runs(runs))
    assert said.startswith("run and run were tested on different splits")
    runs[2].facts["recipe"] = "other"
    assert not doubts(group_runs(runs))
    folds = [run(0.7, fold=1), run(0.8, fold=2)]  # of one manifest
    for one in folds:
        one.facts["splits_sha256"] = "x"
    (said,) = doubts(group_runs(folds))
    assert said.startswith("run and run were tested on different splits")
    assert not doubts(group_runs(folds, "fold"), "fold")


def test_rows_that_were_trained_on_more_clips_are_announced() -> None:
    probe, lora = run(0.9, validation__train=True), run(0.8, validation__train=False)
    probe.name, lora.name = "probe", "lora"
    for runs in ([probe, lora], [lora, probe]):
        (said,) = doubts(group_runs(runs))
        assert said.startswith("probe was trained on the validation clips as well, lora was not")
    lora.facts["recipe"] = "other"
    assert not doubts(group_runs([probe, lora]))


@pytest.mark.parametrize("fact", OF_DATA)
def test_rows_on_other_data_and_repeated_seeds_are_announced(fact: str) -> None:
    runs = [run(0.7), run(0.8, seed=1), run(0.9, filter="bank")]
    assert doubts(group_runs(runs)) == []
    for one, samples in zip(runs, "aab", strict=True):
        one.facts[fact] = samples
    (said,) = doubts(group_runs(runs))
    assert said.startswith("run and run were made on different data")
    (said,) = doubts(group_runs([run(0.7), run(0.8), run(0.6, seed=1)]))
    assert said.startswith("run and run have the same settings and seed")
    speakers = [run(0.7, speaker="a"), run(0.8, speaker="b")]
    assert doubts(group_runs(speakers, "speaker"), "speaker") == []


def test_a_run_that_is_given_twice_counts_once() -> None:
    runs = [
        run(0.2 * fold + 0.01 * seed * (filter == "bank"), seed, filter, fold=fold)
        for seed in (0, 1) for fold in (1, 2) for filter in ("none", "bank")
    ]  # fmt: skip
    (_, expected) = compare(group_runs(runs, "fold"))
    assert expected["minus the first"].startswith("+0.0050 ")
    assert compare(group_runs([*runs, *runs[:1], *runs[:1]], "fold"))[1] == expected


def test_rows_of_other_recipes_or_seeds_have_no_paired_difference() -> None:
    settings = {f"a__{number}": 1 for number in range(5)}  # too many to name the rows by
    mine = [run(0.7 + 0.01 * seed, seed) for seed in range(3)]
    other = [run(0.9, seed, "bank", **settings) for seed in range(3)]
    for one in other:
        one.facts["recipe"], one.overrides = "other", ["filter=bank"]
    first, second = compare(group_runs([*mine, *other]))
    assert "minus the first" not in first
    assert "recipe=other" in second["setting"]
    for seed in (0, 1):  # over folds, with one seed each
        runs = [run(0.1 * fold, 0, fold=fold) for fold in (1, 2)]
        runs += [run(0.1 * fold + 0.02, seed, "bank", fold=fold) for fold in (1, 2)]
        _, row = compare(group_runs(runs, "fold"))
        assert ("minus the first" in row) == (seed == 0)


def test_runs_of_several_labels_are_compared_by_map_and_by_no_other() -> None:
    several = run(0.5, filter="bank")
    several.facts |= {"metric": "mAP", "test.mAP": 0.25, "test.auc": 0.75}
    (row,) = compare(group_runs([several]))
    assert (row["test mAP"], row["macro AUC"]) == ("0.2500", "0.7500")
    with pytest.raises(DataError, match="accuracy and mAP cannot be compared"):
        compare(group_runs([run(0.5), several]))
    del several.facts["test.auc"]  # of no class is it defined
    assert compare(group_runs([several]))[0]["macro AUC"] == "-"


def test_runs_on_a_pretrained_encoder_say_what_adapting_took() -> None:
    adapted = [run(0.9, adapt="lora"), run(0.8, seed=1, adapt="lora")]
    for record, seconds, memory in zip(adapted, (2.0, 4.0), (2**30, 2**29), strict=True):
        found = {"trained_params": 5000, "best_seconds": seconds, "peak_memory_bytes": memory}
        record.facts |= found
    fitted = run(0.7, adapt="probe")
    del fitted.facts["step_seconds"]  # null in its report
    rows = compare(group_runs([*adapted, run(0.5, adapt="none"), fitted]))
    names = ("setting", "trained", "s to best", "MiB at most", "ms/step")
    assert [[row[name] for name in names] for row in rows] == [
        ["adapt=lora", "5,000", "3", "1,024", "100"],
        ["adapt=none", "-", "-", "-", "100"],
        ["adapt=probe", "-", "-", "-", "-"],
    ]


def test_settings_are_shown_in_one_notation_however_many_differ() -> None:
    few = [run(0.5, skip_bad=skip, source="/data/my sounds") for skip in (True, False)]
    few[0].settings["scales"], few[1].settings["scales"] = [["/data/a", 1]], [["b", 1]]
    assert [group.name for group in group_runs(few)] == [
        'scales=[["…/a", 1]], skip_bad=true', 'scales=[["b", 1]], skip_bad=false',
    ]  # fmt: skip
    many = [
        run(0.5, skip_bad=skip, source=f"/data/my {skip}", **dict.fromkeys("abcd", skip))
        for skip in (True, False)
    ]
    for record in many:
        value = record.settings["skip_bad"]
        record.overrides = [f"source='/data/my {value}'", f"skip_bad={value}", f"model={value}"]
    assert [group.name for group in group_runs(many)] == [
        "source=…/my True, skip_bad=true, model=True",
        "source=…/my False, skip_bad=false, model=False",
    ]


def test_groups_that_differ_in_many_settings_are_named_by_what_was_given() -> None:
    derived = {f"model__option{number}": number for number in range(6)}
    probe = run(0.9, adapt="probe", optim__lr=0.01, **derived)
    scratch = run(0.7, adapt="none")
    probe.overrides = ["source=/data/sounds", "model=pretrained", "optim.lr=0.01", "seed=0"]
    scratch.overrides = ["source=/data/sounds", "filter=none"]
    named = group_runs([probe, scratch])
    assert [group.name for group in named] == ["model=pretrained, optim.lr=0.01", "filter=none"]
    scratch.overrides = ["source='/data/sounds'", "filter='none'"]  # as spaudio.train gives them
    assert [group.name for group in group_runs([probe, scratch])] == [one.name for one in named]
    assert all(row["run"] == "run" for row in compare(named))
    # The same was given for both, of different versions: their settings tell them apart.
    probe.overrides = scratch.overrides
    assert "model.option5=5" in group_runs([probe, scratch])[0].name
    # The grouping is by the settings, whatever was given.
    assert len(group_runs([probe, scratch, run(0.8, seed=1, adapt="none")])) == 2
