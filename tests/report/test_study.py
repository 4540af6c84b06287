"""A study over datasets: its CSV, paired effects, tables and page."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp, ttest_ind

from spaudio.cli import main
from spaudio.errors import DataError
from spaudio.report.marked_page import PLACE, has_place
from spaudio.report.study_effects import Effect, holm, measure_effects
from spaudio.report.study_records import Result, read_results, write_results
from spaudio.report.study_report import (
    charts_beside,
    modulation_rows,
    show_results,
    verdict,
)
from tests import RECIPES

STUDY = RECIPES / "study"
RUN = Result(
    data="digits", recipe="fsdd", setting="none", fold="", seed=0, accuracy=0.5, valid=0.6,
    floor=0.4, clips=100, token_rate=50.0, parameters=1000, filter_parameters=0,
    trained_parameters=1000, steps=10, step_seconds=0.1, train_seconds=1.0,
    modulation_before=-0.25, modulation_after=0.5, baseline="", control="",
    overrides="filter=none", git_commit="abc",
)  # fmt: skip


def study() -> list[Result]:
    """Two datasets, one of five folds and one of two seeds; `bank` gains 0.1 and 0.02."""
    noise = np.random.default_rng(0).normal(0, 0.01, 5)
    found = []
    for setting, gain in (("none", 0.0), ("depthwise", 0.02), ("bank", 0.1)):
        named = replace(RUN, setting=setting, baseline="" if setting == "none" else "none")
        if setting == "bank":
            named = replace(named, control="depthwise", filter_parameters=9, step_seconds=0.2)
        found += [replace(named, seed=seed, accuracy=0.8 + gain / 5) for seed in (0, 1)]
        for fold in range(5):
            accuracy = 0.5 + 0.05 * fold + gain + (noise[fold] if gain else 0)
            found.append(replace(named, data="=music", fold=str(fold), accuracy=accuracy))
    return found


def test_effects_are_means_over_data_sets_of_paired_differences() -> None:
    results = study()
    depthwise, bank = measure_effects(results, {"depthwise": "none", "bank": "none", "fir": "none"})
    noise = bank.differences["=music"].mean() - 0.1
    assert bank.mean == pytest.approx((0.1 + noise + 0.02) / 2)
    assert bank.low < bank.mean < bank.high
    # Half as wide as that of the five folds alone, as the seeds of the other dataset are equal.
    # Folds share training clips, so their variance counts 1/5 + 1/4 instead of 1/5.
    alone = ttest_1samp(bank.differences["=music"], 0).confidence_interval()
    wider = math.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    assert bank.high - bank.low == pytest.approx(wider * (alone.high - alone.low) / 2)
    # Of two datasets with seeds: Welch's interval for the difference of means, if one changes its
    # sign.
    seeds = np.array([0.03, 0.01, 0.02, 0.06]), np.array([0.01, 0.02, -0.03])
    two = [
        replace(
            RUN,
            data=f"{data}",
            setting=setting,
            seed=seed,
            accuracy=gain * (setting == "bank"),
        )
        for data, gains in enumerate(seeds)
        for setting in ("none", "bank")
        for seed, gain in enumerate(gains)
    ]
    (both,) = measure_effects(two, {"bank": "none"})
    welch = ttest_ind(seeds[0], -seeds[1], equal_var=False)
    interval = welch.confidence_interval()
    assert (2 * both.low, 2 * both.high) == pytest.approx((interval.low, interval.high))
    assert both.p == pytest.approx(welch.pvalue)
    assert (len(bank.pairs), list(bank.differences)) == (7, ["digits", "=music"])
    # With a single run, the spread of a dataset is unknown, rather than zero.
    (first,) = measure_effects([one for one in results if one.seed == 0], {"bank": "none"})
    assert (first.mean, first.p) == (pytest.approx(bank.mean), 1)
    assert np.isnan(first.low)
    assert bank.corrected == 2 * bank.p
    assert depthwise.other == "none"
    (against,) = measure_effects(results, {"bank": "depthwise"})
    assert against.mean == pytest.approx(0.048)
    alone = [one for one in results if one.data == "digits" and one.seed == 0]
    (only,) = measure_effects(alone, {"bank": "none"})
    assert np.isnan(only.low)
    assert only.p == 1
    # Runs are paired by dataset, fold and seed, in whatever order they come.
    (again,) = measure_effects([*results[:7], *results[:6:-1]], {"bank": "none"})
    assert (again.mean, again.p) == pytest.approx((bank.mean, bank.p))
    assert all((one.data, one.fold) == (other.data, other.fold) for one, other in again.pairs)
    with pytest.raises(DataError, match="two runs have setting bank, dataset digits"):
        measure_effects([*alone, alone[-1]], {"bank": "none"})


def test_seeds_of_a_fold_count_as_one_and_folds_without_a_pair_as_folds() -> None:
    gains = {"a": (0.01, 0.05), "b": (0.0, 0.02), "c": (0.06, 0.0)}
    results = []
    for fold, seeds in gains.items():
        for seed, gain in enumerate(seeds):
            base = replace(RUN, fold=fold, seed=seed)
            results += [base, replace(base, setting="bank", accuracy=base.accuracy + gain)]
    results.append(replace(RUN, fold="d"))  # the fourth of the dataset
    (found,) = measure_effects(results, {"bank": "none"})
    alone = ttest_1samp([0.03, 0.01, 0.03], 0).confidence_interval()
    wider = math.sqrt((1 / 3 + 1 / 3) / (1 / 3))
    assert found.high - found.low == pytest.approx(wider * (alone.high - alone.low))
    # Of one fold there are seeds alone.
    (found,) = measure_effects(results[:4] + results[-1:], {"bank": "none"})
    alone = ttest_1samp([0.01, 0.05], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    # Equal differences show no variance, rather than none.
    equal = [replace(one, accuracy=0.5 + 0.02 * (one.setting == "bank")) for one in results]
    (found,) = measure_effects(equal, {"bank": "none"})
    assert math.isnan(found.low)
    assert (found.mean, found.p) == (pytest.approx(0.02), 1)


def test_the_bootstrap_covers_datasets_and_their_folds() -> None:
    """With many folds it is the normal interval, from the variances of datasets and of folds."""
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 30))
    gains = noise + np.array([[0.05], [0.02], [-0.03], [0.0]])
    results = [
        replace(RUN, data=f"{data}", setting=setting, fold=f"{fold}", accuracy=gain * own)
        for data, folds in enumerate(gains)
        for fold, gain in enumerate(folds)
        for own, setting in enumerate(("none", "bank"))
    ]
    (found,) = measure_effects(results, {"bank": "none"})
    variance = (gains.mean(1).var() + (gains.var(1) / 30).mean()) / 4
    low, high = found.bootstrap
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.05)
    assert (low + high) / 2 == pytest.approx(found.mean, abs=0.002)
    assert measure_effects(results, {"bank": "none"})[0].bootstrap == found.bootstrap
    (alone,) = measure_effects(results[:60], {"bank": "none"})  # of one dataset
    assert not np.isfinite(alone.bootstrap).any()


def test_a_reliable_gain_is_large_certain_and_corrected() -> None:
    good = Effect("good", "none", [], 0.02, 0.01, 0.03, 0.001, (math.nan, math.nan), 0.04)
    small, open_end = replace(good, mean=0.009), replace(good, low=-0.001)
    by_chance, worse = replace(good, corrected=0.06), replace(good, mean=-0.02, low=-0.03)
    others = [replace(one, setting="no") for one in (small, open_end, by_chance, worse)]
    said = verdict([good, *others])
    assert said.endswith("of 5 comparisons: `good` minus `none` (+2.00).**")
    assert verdict([by_chance]).endswith("of 1 comparisons: none.**")


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_the_csv_prints_the_tables_and_the_chart_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: list[Figure]
) -> None:
    file, page, again = tmp_path / "study.csv", tmp_path / "page.md", tmp_path / "again.md"
    page.write_text(f"# Study\n\n{PLACE}\n\nstale\n\n{PLACE}\n\nThe end.\n")
    show_results(study(), output=page, table=file)
    printed = capsys.readouterr().out
    assert "0.600 ± 0.079" in printed
    assert "0.600 ± 0.000" in printed  # on the validation split
    assert "-0.25 ± 0.00 → 0.50 ± 0.00" in page.read_text()
    assert not modulation_rows([replace(RUN, modulation_after=math.nan)])
    assert read_results(file) == study()
    show_results(read_results(file), output=again)
    assert capsys.readouterr().out == printed
    text = page.read_text()
    assert text.startswith(f"# Study\n\n{PLACE}\n\n**Reliable gains (at least 1 point")
    found = "`depthwise` minus `none` (+1.22), `bank` minus `none` (+6.02)"
    assert f"of 3 comparisons: {found}.**" in text
    shown = [f"![page-{kind}](page-{kind}.png)\n\n" for kind in ("effects", "modulation")]
    assert text.endswith(f"{''.join(shown)}{PLACE}\n\nThe end.\n")
    assert "stale" not in text
    assert again.read_text().splitlines()[-1] == "![again-modulation](again-modulation.png)"
    assert charts_beside(page)[0].read_bytes() == b"a figure"
    first = figures[0]
    assert first.get_figwidth() * 100 == 700
    axes = first.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    rows = dict(zip(labels, axes.get_yticks(), strict=True))
    assert rows == {"minus none:": 0, "depthwise": -1, "bank": -2}
    grey = [c.get_offsets() for c in axes.collections if "the control" in str(c.get_label())]
    np.testing.assert_allclose(np.concatenate(grey), [[4.8, -2.35]])
    assert [text.get_text() for text in axes.texts] == ["minus depthwise"]
    for row in ("| bank | none | 2 | 7 |", "| bank | depthwise | 2 | 7 |"):
        assert row in text
    assert not charts_beside(page)[1].exists()  # of adapters alone
    for panel in figures[1].axes:  # from -0.25 to 0.5
        arrow = [each.get_offsets() for each in panel.collections]
        np.testing.assert_allclose(arrow, [[[x, y]] for y in range(3) for x in (-0.25, 0.5)])
    # Times on another processor are marked, and neither drawn nor compared.
    moved = {"bank": "AVX2"}
    adapted = [
        replace(one, trained_parameters=10, instruction_set=moved.get(one.setting, ""))
        for one in study()
    ]
    show_results(adapted, output=again)
    text = again.read_text()
    assert "| none | digits | 2 | 10 | 0.800 | 100 | 1.0 |" in text
    assert r"| bank | digits | 2 | 10 | 0.820 | 200 \* | 1.0 \* |" in text
    assert re.findall(r"^\| (\w+) \| \w+ \| 2 .* (\S+) \| 1.00 \|$", text, re.MULTILINE) == [
        ("depthwise", "1.00"), ("bank", "-"), ("bank", "-")
    ]  # fmt: skip
    assert "![again-costs](again-costs.png)" in text
    left, right = figures[-2].axes[:2]
    drawn = [
        np.concatenate(
            [each.get_offsets() for each in axes.collections if isinstance(each, PathCollection)]
        )
        for axes in (left, right)
    ]
    np.testing.assert_allclose(drawn[0], [[9.5, 0.8], [10, 0.804], [10.5, 0.82]])
    np.testing.assert_allclose(drawn[1], [[0.975, 0.8], [1.025, 0.804]])
    assert right.get_xlabel() == "seconds of training"
    show_results([one for one in study() if one.setting == "none"], output=again)
    assert "effects" not in again.read_text()  # no older chart
    with pytest.raises(SystemExit, match="--only has no effect on the results in"):
        main(["study", str(file), "--only", "bank"])
    cut = tmp_path / "cut.csv"
    cut.write_text(file.read_text().rpartition(",")[0])
    with pytest.raises(DataError, match="not a file that `spaudio study"):
        read_results(cut)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a file that `spaudio study"):
        read_results(tmp_path / "other.csv")
    write_results([], file)
    with pytest.raises(DataError, match="holds no run"):
        read_results(file)


@pytest.mark.parametrize("names", [("RESULTS.md", "study.csv"), ("ADAPTERS.md", "adapters.csv")])
def test_the_pages_of_the_audio_studies_are_what_their_csv_prints(
    names: tuple[str, str], tmp_path: Path, figures: list[Figure]
) -> None:
    page, file = (STUDY / name for name in names)
    assert has_place(page)
    if not file.is_file():
        pytest.skip("the study has no recorded runs yet")
    copy = tmp_path / page.name
    copy.write_bytes(page.read_bytes())
    show_results(read_results(file), output=copy)
    assert copy.read_text() == page.read_text()
    assert charts_beside(page)[0].is_file()


def test_settings_may_have_baselines_of_their_own(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [
        replace(one, baseline="" if one.setting == "depthwise" else one.baseline, control="")
        for one in study()
    ]
    runs = [replace(one, baseline="depthwise") if one.setting == "bank" else one for one in runs]
    with_none = [replace(one, setting="haar", baseline="none") for one in runs[:7]]
    show_results([*runs, *with_none], output=tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "minus depthwise**" in text
    assert "| bank | depthwise | 2 | 7 |" in text
    assert "minus none**" in text
    assert "| haar | none | 2 | 7 |" in text
    assert "| bank | none |" not in text


def test_a_data_set_without_runs_of_the_baseline_counts_those_of_a_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of five runs of `bank` and two of `depthwise`, and none of `none`."""
    music = [one for one in study() if one.data == "=music" and one.setting != "none"]
    few = [one for one in music if one.setting == "bank" or one.fold in "01"]
    show_results([*(one for one in study() if one.data != "=music"), *few])
    printed = " ".join(capsys.readouterr().out.split())
    assert "(2 of 5)" in printed
    assert re.search(r"=music │ \w+ │ +5 │", printed)
