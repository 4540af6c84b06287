import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from spaudio.audio.manifest import Clip
from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.experiment.compose import compose
from spaudio.experiment.datasets import data_at_hand, find_recipes, read_about
from spaudio.experiment.settings import About
from spaudio.experiment.tasks.describe import is_calibrated_on_known_groups
from tests import conftest

RECIPES = find_recipes(conftest.RECIPES)


def test_every_recipe_says_what_it_is() -> None:
    for recipe in RECIPES:
        about = read_about(recipe)
        assert about.url is None or about.url.startswith("https://")


def test_an_empty_or_missing_fact_is_named(tmp_path: Path) -> None:
    facts = {"title": "t", "licence": "l", "size": "s", "classes": 3, "metric": "m", "url": None}
    assert About(**facts)  # type: ignore[arg-type]
    for name, value in (("licence", ""), ("classes", 0), ("size", 3), ("title", None)):
        with pytest.raises(ConfigError, match=f"about.{name}"):
            About(**{**facts, name: value})  # type: ignore[arg-type]
    for text in ("recipe: a\n", "about: {title: t}\n", "about: x\n", "about: [", "- a\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            read_about(tmp_path)


def test_whether_data_are_at_hand(tmp_path: Path) -> None:
    assert data_at_hand("toy", tmp_path) == "absent"
    (tmp_path / "toy" / "work" / "x").mkdir(parents=True)
    assert data_at_hand("toy", tmp_path) == "fetched, not prepared"
    for key, clips in (("k1", 3), ("k2", 2000)):
        marker = tmp_path / "toy" / key / "prepared.json"
        marker.parent.mkdir()
        record = {"root": str(tmp_path / "audio"), "clips": clips + 1}
        marker.write_text(json.dumps(record))
    assert "gone" in data_at_hand("toy", tmp_path)
    (tmp_path / "audio").mkdir()
    assert data_at_hand("toy", tmp_path) == "prepared: 4 / 2,001 clips"
    for damaged in ("{", "[" * 100_000):
        marker.write_text(damaged)
        assert data_at_hand("toy", tmp_path) == "prepared: 4 clips"


def test_the_command_lists_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["datasets", "--data", str(tmp_path)])
    out = capsys.readouterr().out
    for recipe in RECIPES:
        assert recipe.name in out
        assert read_about(recipe).licence in out
    assert out.count("absent") == len(RECIPES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("recipe: mine\n")
    main(["datasets", "--recipes", str(tmp_path)])
    assert "`about` must give" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"error: no recipe in"):
        main(["datasets", "--recipes", str(tmp_path / "nowhere")])


def test_calibration_on_groups_that_were_trained_on_is_noticed() -> None:
    plain = compose(conftest.RECIPES / "folder", ["source=x"])

    def calibrated(**groups: str) -> bool:
        clips = [Clip(s, "a", s, group, 1.0, 8000) for s, group in groups.items()]
        return is_calibrated_on_known_groups(plain, SimpleNamespace(clips=clips))  # type: ignore[arg-type]

    assert calibrated(train="ann", valid="ann", test="bob")
    assert not calibrated(train="ann", valid="cas", test="bob")
    assert not calibrated(train="ann", valid="ann", test="ann")
    noise = [
        Clip(f"_background_/{s}", "_background_", s, "r", 1.0, 8000) for s in ("train", "valid")
    ]
    cut = compose(conftest.RECIPES / "folder", ["source=x", "background=y"])
    assert not is_calibrated_on_known_groups(cut, SimpleNamespace(clips=noise))  # type: ignore[arg-type]
