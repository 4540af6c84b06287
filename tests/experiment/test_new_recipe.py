"""``spaudio train`` and ``spaudio new``: a folder of sounds, and a recipe of one's own."""

from pathlib import Path

import pytest
import yaml

from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.experiment.compose import compose
from spaudio.experiment.run_folder import read_run_config
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.tasks.setting_warnings import replaced
from tests.fixtures.own_sounds import make_own_sounds

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_train_takes_the_folder_and_settings_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "my 'own', sounds=1"
    odd.mkdir()
    for command in ([str(odd), "--cfg", "seed=3"], ["--cfg", str(odd), "seed=3"]):
        main(["train", *command])
        settings = yaml.safe_load(capsys.readouterr().out)
        assert (settings["source"], settings["seed"]) == (str(odd), 3)
    with pytest.raises(SystemExit) as caught:
        main(["train", "nowhere"])
    assert caught.value.code == 1
    assert "source='nowhere': no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit):
        main(["datasets", "x=1"])
    assert "unrecognized arguments: x=1" in capsys.readouterr().err


def test_a_new_recipe_runs_and_can_be_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spaudio.experiment.entry import main as run_recipe

    monkeypatch.chdir(tmp_path)
    make_own_sounds(tmp_path / "sounds", clips=2)
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv/bin/python"))
    main(["new", "digits", "sounds"])
    folder = tmp_path / "digits"
    command = ".venv/bin/python digits/run.py"
    assert capsys.readouterr().out.endswith(f"then: {command}\n")
    assert f"\n{command} --cfg" in (folder / "README.md").read_text()
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.yaml", "prep.py",
                                                        "run.py"}  # fmt: skip
    script = folder / "prep.py"
    edited = script.read_text().replace("test_fraction: float = 0.2", "test_fraction: float = 0.4")
    script.write_text(edited)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("that of your data", "CC0"))
    run_recipe(
        str(folder / "run.py"), ["preset=debug", "page=false", "trainer.epochs=1", "run_id=a"]
    )
    run = tmp_path / "runs" / "digits" / "a"
    assert read_run_config(run)["about"]["licence"] == "CC0"
    assert "15 training, 3 validation, 12 test" in (run / "report.md").read_text().replace("\n", "")
    # The folder may be renamed; a name that is taken is refused before anything is prepared.
    renamed = str(folder.rename(tmp_path / "numbers") / "run.py")
    capsys.readouterr()
    run_recipe(renamed, [f"resume={run}"])
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_recipe(renamed, ["run_id=a", "data=unused"])
    assert "run_id=a exists in runs/digits; choose" in capsys.readouterr().err
    assert not (tmp_path / "unused").exists()
    (tmp_path / "numbers").rename(folder)
    text = config.read_text()
    config.write_text(
        text.replace("preset: null", "preset: null\n  - override model: pretrained", 1)
    )
    with pytest.raises(ConfigError, match=r"digits/config\.yaml chooses a pretrained model"):
        compose(folder, ["model.source=a/b"])
    with pytest.raises(SystemExit, match="digits exists; choose another name"):
        main(["new", "digits", "sounds"])
    with pytest.raises(SystemExit, match="nowhere: no such file or folder"):
        main(["new", "more", "nowhere"])
    with pytest.raises(SystemExit, match=r"'\.\./x' is not a recipe name"):
        main(["new", "../x", "sounds"])
    config.write_text(
        f"{text}trainer:\n  epochs: 40\n  batch_size: 9\n  ema: 0.98\nsegments:\n  seconds: 2\n"
    )
    given = ["model=pretrained", "model.source=a/b", "adapt=lora", "trainer.batch_size=5"]
    settings = compose(folder, given)
    assert isinstance(settings, AudioSettings)
    assert list(replaced(settings)) == [
        "model=pretrained replaces settings of config.yaml: segments.seconds=2 by null, "
        "trainer.epochs=40 by 8. Settings on the command line are kept"
    ]
    config.write_text(f"{text}adapt: full\n")  # its own defaults, as on the command line
    settings = compose(folder, given[:2])
    assert isinstance(settings, AudioSettings)
    assert (settings.adapt, settings.optim.lr, settings.augment.mixup) == ("full", 1e-4, 0.5)
    assert settings.augment.gain > 0
    # A name that YAML reads as a truth value, and a folder beyond its plain characters.
    (tmp_path / "sounds").rename(sounds := tmp_path / "sounds 🔊")
    main(["new", "no", str(sounds)])
    settings = compose(tmp_path / "no")
    assert (settings.recipe, settings.about.title) == ("no", "no")
    assert settings.prep_options["source"] == str(sounds.resolve())
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {sounds.name, "digits", "no", "data", "runs"}
