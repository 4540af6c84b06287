"""The site builds with strict links, without a network, and loads nothing from other hosts."""

import logging
import re
import runpy
import socket
from pathlib import Path
from statistics import fmean

import pytest

from spaudio import filters
from spaudio.report.study_records import read_results
from tests import ROOT


def test_the_site_builds_and_loads_nothing_from_other_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    pytest.importorskip("material", reason="the extra docs is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    def refuse(*given: object) -> None:
        raise OSError("the site needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = load_config(str(ROOT / "docs" / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    with caplog.at_level(logging.WARNING, logger="mkdocs"):
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build(config)
        except Abort:
            pytest.fail("\n".join(record.getMessage() for record in caplog.records))
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r'(?:src="|<link[^>]*href=")(https?://[^"]+)', page.read_text("utf-8"))
        assert not loaded, page
    reference = (tmp_path / "docs/api/filters.html").read_text("utf-8")
    assert "Parameters" in reference
    for name in set(filters.__all__) - {"FILTERS"}:
        assert f'id="spaudio.filters.{name}"' in reference
    settings = (tmp_path / "docs/api/settings.html").read_text("utf-8")
    assert 'id="spaudio.tokens.config.TokenConfig"' in settings
    assert not re.findall(r'id="spaudio\.[\w.]+\.[A-Z]\w+\.\w+"', settings)  # no methods
    for notebook in (ROOT / "docs/notebooks").glob("*.ipynb"):
        page = (tmp_path / f"docs/notebooks/{notebook.stem}.html").read_text("utf-8")
        assert f'href="{notebook.name}"' in page


def test_the_reference_names_all_filters() -> None:
    page = (ROOT / "docs" / "api" / "filters.md").read_text("utf-8")
    named = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", page, re.MULTILINE))
    own = {k: v for k, v in filters.FILTERS.items() if v.__module__.startswith("spaudio.")}
    assert named == {name: kind.__name__ for name, kind in own.items()}
    members = re.findall(r"^        - (\w+)$", page, re.MULTILINE)
    assert sorted(members) == sorted(set(filters.__all__) - {"FILTERS"})


def test_the_table_of_results_is_that_of_the_csv() -> None:
    results = runpy.run_path(str(ROOT / "docs" / "results.py"))
    assert results["table"](results["read"]()) in (ROOT / "README.md").read_text("utf-8")


def test_the_page_of_results_lists_all_recipes() -> None:
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    listed = re.findall(r"^\| \[`(\w+)`\]", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in ROOT.glob("recipes/*/config.yaml"))


def test_make_results_reads_all_recorded_runs() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    rule = re.search(r"^results:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert rule
    recorded = [file.relative_to(ROOT).as_posix() for file in ROOT.glob("recipes/*/*.csv")]
    assert recorded
    for file in (*recorded, "docs/results.py", "docs/gains.py"):
        assert file in rule[1]


def test_the_page_of_adapters_states_what_was_reached() -> None:
    """From scratch, the probe, the best adapter and the verdict on the target are the CSVs'."""
    results = runpy.run_path(str(ROOT / "docs" / "results.py"))
    scratch = {row["data"]: row for row in results["read"]() if row["kind"] == "scratch"}
    scratch["Spoken digits"] = scratch["Free Spoken Digits"]
    runs: dict[str, dict[str, list[float]]] = {}
    for one in read_results(ROOT / "recipes/study/adapters.csv"):
        if not one.setting.startswith("earlier-"):
            runs.setdefault(one.data, {}).setdefault(one.setting, []).append(one.accuracy)
    page = (ROOT / "recipes/study/ADAPTERS.md").read_text("utf-8")
    for data, settings in runs.items():
        most = max(len(own) for own in settings.values())
        means = {name: fmean(own) for name, own in settings.items() if len(own) == most}
        probe = means.pop("probe")
        best = max(means, key=means.__getitem__)
        row = f"{results['_value'](scratch[data])} | {probe:.3f} | `{best}` {means[best]:.3f}"
        found = re.search(rf"^\| {data} \| {re.escape(row)} \| (.*) \| (\w+) \|$", page, re.M)
        assert found, f"{data} | {row}"
        target, reached = found.groups()
        (wanted,) = map(float, re.findall(r"0\.\d+", target))
        if "from scratch" in target:
            assert wanted == float(scratch[data]["accuracy"])
        own = means[best] if "adapter" in target else max(probe, means[best])
        assert reached == ("yes" if own >= wanted else "no"), data


def test_the_readme_states_the_gains_of_its_chart(tmp_path: Path) -> None:
    gains = runpy.run_path(str(ROOT / "docs" / "gains.py"))
    readme = (ROOT / "README.md").read_text("utf-8")
    groups = gains["measure"]()
    effects = {one.setting: one for rows in groups.values() for _, one in rows}
    for setting in (
        "earlier-stemless-default-depthwise",
        "stemless-default-depthwise",
        "earlier-default-depthwise",
        "default-depthwise",
    ):
        one = effects[setting]
        mean, low, high = (f"{100 * value:.1f}" for value in (one.mean, one.low, one.high))
        assert re.search(rf"\+{mean} [^()]+\((95 % interval )?{low} to {high}\)", readme), one
    gains["draw"](groups, tmp_path / "gains.png")
    assert (tmp_path / "gains.png").stat().st_size > 10_000
