"""Every command printed in README.md, docs/*.md and recipes/*/README.md runs, on tiny data.

One whose settings other commands run with is composed only. Those of results are parsed only.
Blocks of other languages are read by other tests.
"""

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import NoReturn

import numpy as np
import pytest
import soundfile

from spaudio import cli
from spaudio.errors import SpaudioError
from spaudio.experiment.compose import compose, expand
from spaudio.experiment.study_plan import plan_study
from tests import RECIPES, ROOT
from tests.conftest import RunRecipe
from tests.fixtures.annotated import EVENTS, make_recordings, make_selections
from tests.fixtures.tiny_audio import CLASSES, RATE, make_class_folders, tone
from tests.fixtures.tiny_recipes import TINY

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(RECIPES.glob("*/README.md")),
]
RESULTS = [ROOT / "spaudio/bench/RESULTS.md", ROOT / "spaudio/bench/peers/README.md",
           RECIPES / "study/ADAPTERS.md", *sorted(RECIPES.glob("*/RESULTS.md"))]  # fmt: skip
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
# The other blocks of each page, and the tests that read them.
OTHERS = {
    "CONTRIBUTING.md": ["python", "yaml"],  # below
    "README.md": ["python", "python"],  # filters/test_readme_example.py, inference/test_audio_model
    "docs/api/filters.md": ["python"],  # filters/test_readme_example.py
    "docs/api/settings.md": ["yaml", "yaml"],  # test_site.py: files that are included
    "docs/defaults.md": ["python"] * 3,  # inference/test_audio_model
    "docs/filters.md": ["python"],  # filters/test_readme_example.py
    "docs/own_sounds.md": ["python", "python"],  # export/test_write.py, inference/test_audio_model
    "docs/pretrained.md": ["python"] * 2,  # inference/test_audio_model
    "docs/runs.md": ["yaml", "yaml"],  # below
    "docs/your_model.md": ["python"],  # filters/test_readme_example.py
}

# What cannot run here, by a part of the command, and why. Settings of a run.py are composed.
NOT_RUN = {
    "make": "sets up an environment of its own, and `make test` runs this test",
    "venv": "sets up an environment",
    "install": "downloads packages",
    "head=$(scontrol": "needs SLURM",
    ".venv/bin/torchrun": "several GPUs; tests/experiment/test_processes.py has two processes",
    "cluster=slurm": "needs SLURM; tests/experiment/test_launch.py submits with cluster=local",
    "test=archive": "downloads the separate test set of Speech Commands",
    "subset=dev-clean": "downloads another part of LibriSpeech",
    "model=pretrained": "loads an encoder; tests/experiment/test_adaptation.py has small ones",
    "export": "takes seconds; tests/export/test_write.py runs the command in both formats",
    "recipes/study/study.yaml": "trains for an hour; a test below plans its runs",
    "corpus=text8": "takes no other text than text8 itself",
}
# Added to what is printed, so that a run takes a second.
SMALL = ["model.dim=16", "model.layers=1", "model.heads=2", "trainer.epochs=1",
         "trainer.batch_size=64", "trainer.min_steps=0", "trainer.workers=0", "jobs=1"]  # fmt: skip


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the ``sh`` blocks of a page; a backslash joins lines."""
    for language, block in FENCE.findall(page.read_text("utf-8")):
        for line in re.sub(r"\\\n\s*", "", block).splitlines() if language == "sh" else ():
            if words := shlex.split(line, comments=True):
                yield words


# Each once, even if several pages print it.
COMMANDS = [*map(list, dict.fromkeys(tuple(words) for page in PAGES for words in commands(page)))]


def reason(words: list[str]) -> str | None:
    """Why a command is not run, if so."""
    return next((why for part, why in NOT_RUN.items() if part in words), None)


def of_recipe(name: str) -> list[tuple[list[str], list[str]]]:
    """The commands that run a recipe: what stands before its ``run.py``, and after it."""
    script = f"recipes/{name}/run.py"
    places = [(words, words.index(script)) for words in COMMANDS if script in words]
    return [(words[:place], words[place + 1 :]) for words, place in places]


def kinds(words: list[str]) -> set[str]:
    """The settings of a command, without their numbers and without its data."""
    given = [word for word in words if not re.match("(source|corpus)=", word)]
    return {re.sub(r"=[\d.,e-]+$", "=", word) for word in fewer(given, 2)}


def run_before(name: str) -> set[str]:
    """The settings that the commands of the recipes before this one run with, but of their data."""
    found: set[str] = set()
    for other in TINY:
        if other == name:
            break
        own = {*compose(RECIPES / other).prep_options, "fold", "folds"}
        for before, words in of_recipe(other):
            if not reason([*before, *words]):
                found |= {kind for kind in kinds(words) if kind.partition("=")[0] not in own}
    return found


def fewer(words: list[str], left: int) -> Iterator[str]:
    """Some values of the first setting of which several are listed, and one of each other."""
    for word in words:
        key, _, values = word.partition("=")
        if "," in values and values[0] not in "[{":
            word = f"{key}={','.join(values.split(',')[:left])}"
            left = 1
        yield word


def tiny(words: list[str], data: list[str], values: int = 2) -> list[str]:
    """The same command on tiny data: its placeholders replaced, and fewer runs."""
    if any(word.startswith("resume=") for word in words):
        return words
    given = [word for word in words if not re.match("(source|corpus)=", word)]
    given = [word.replace("(speaker\\d+)", "(g\\d+)") for word in given]
    given = [word.replace("yweweler,nicolas", "jackson,theo") for word in given]
    given = [*fewer(given, values)]
    if "pretrain=masked" in words:
        given = [word.replace("source=UNLABELLED", data[0]) for word in given]
        given.append("pretrain.steps=1")
    return [*given, *data, *SMALL]


def test_every_block_is_read_by_a_test() -> None:
    pages = [page for folder in ("*", "docs/**/*", "recipes/**/*", "spaudio/**/*")
             for page in ROOT.glob(f"{folder}.md")]  # fmt: skip
    assert set(pages) >= {*PAGES, *RESULTS}
    others: dict[str, list[str]] = {}
    for page in pages:
        for language, _ in FENCE.findall(page.read_text("utf-8")):
            if language == "sh":
                assert page in PAGES + RESULTS, page
            elif language:  # without one, it lists files
                others.setdefault(page.relative_to(ROOT).as_posix(), []).append(language)
    assert others == OTHERS


def test_the_recipe_and_the_study_in_the_guides_are_planned(tmp_path: Path) -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    block = {language: dedent(text) for language, text in FENCE.findall(contributing)}
    recipe, script = tmp_path / "recipes" / "birds", tmp_path / "data_prep" / "birds.py"
    recipe.mkdir(parents=True)
    script.parent.mkdir()
    (recipe / "config.yaml").write_text(block["yaml"].replace("<name>", "birds"))
    imports = "from pathlib import Path\nfrom spaudio.audio import SourceClips\n"
    script.write_text(imports + block["python"])
    blocks = FENCE.findall((ROOT / "docs/runs.md").read_text("utf-8"))
    study, paired = [text for language, text in blocks if language == "yaml"]
    (recipe / "study.yaml").write_text(study)
    runs = plan_study(recipe / "study.yaml")
    assert len(runs) == 6
    assert runs[0].settings.prep_options == {"source": None}
    (recipe / "paired.yaml").write_text(paired.replace("recipe: .", f"recipe: {RECIPES / 'fsdd'}"))
    assert len(plan_study(recipe / "paired.yaml")) == 12


def test_every_command_is_known() -> None:
    assert len(COMMANDS) > 50
    for words in COMMANDS:
        assert (
            reason(words)
            or words[:3] == [".venv/bin/python", "-m", "spaudio.bench"]
            or words[0] == ".venv/bin/spaudio"
            or (words[0] == ".venv/bin/python" and re.match(r"recipes/\w+/run\.py", words[1]))
        ), words
    for part in NOT_RUN:
        assert any(part in words for words in COMMANDS), f"{part} is printed no more"


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("name", TINY)
def test_commands_of_a_recipe(name: str, tmp_path: Path, run_recipe: RunRecipe) -> None:
    printed = of_recipe(name)
    assert printed
    data = TINY[name](tmp_path)
    folds = getattr(getattr(compose(RECIPES / name), "fold_by", None), "values", [])
    (tmp_path / "corrections.csv").write_text("clip,label\nhum/g0_0.wav,hiss\n")
    if any(f"resume=runs/{name}/ID" in words for _, words in printed):
        assert run_recipe(name, *data, *SMALL, "run_id=ID").code == 0
    trained, first = run_before(name), True
    for before, words in printed:
        asked = words
        if "--cfg" not in words and "resume=" not in " ".join(words):
            asked = tiny(words, data, values=1 if "-m" in trained else 2)
        # What has been trained with before, if together with other settings or with other numbers,
        # is only composed, and with one of the seeds. Each recipe trains once at least.
        if reason([*before, *words]) or (not first and trained.issuperset(kinds(words))):
            given = [word.replace("$", "") for word in words if word != "-m"]
            for run in expand([re.sub(r"^(seed=\d+),.*", r"\1", word) for word in given]):
                compose(RECIPES / name, run)
            continue
        if "folds=all" in asked:  # of several folds once
            few = 1 if "-m" in asked or "folds=all" in trained else 2
            asked = [*asked, f"fold_by.values={folds[:few]}"]
        trained |= kinds(words)
        first = False
        done = run_recipe(name, *asked)
        assert done.code == 0, (words, done.err)
        assert done.out or "report" in done.err


@pytest.mark.usefixtures("blank_figures")
def test_commands_on_finished_runs(
    tmp_path: Path, run_recipe: RunRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    from spaudio.bench.__main__ import main as bench

    for name in ("folder", "text8"):
        (tmp_path / name).mkdir()
        done = run_recipe(name, *TINY[name](tmp_path / name), *SMALL, "run_id=ID")
        assert done.code == 0, done.err
    (tmp_path / "recipes").symlink_to(RECIPES)
    soundfile.write(tmp_path / "clip.wav", tone(0, np.random.default_rng(0)), RATE)
    make_class_folders(tmp_path / "DIR", groups=1, clips=1)
    text = [*TINY["text8"](tmp_path), *(word for word in SMALL if word != "jobs=1")]
    for words in COMMANDS:
        if reason(words) or any(word.endswith("/run.py") for word in words):
            continue
        costs = "costs.json" if "--step-costs" in words or "bench" in words[2] else "clip.wav"
        given = [costs if word == "FILE" else word for word in words if word != "corpus=FILE"]
        if "study" in given:
            place = given.index("study") + 2
            given[place:place] = text
            given += (
                []
                if "--only" in given
                else ["--only", "none,depthwise,bank-m36-k4", "--seeds", "0"]
            )
        if "step" in given:
            place = given.index("--output")
            given[place:place] = [*text, "trainer.batch_size=2", "--rounds", "1"]
        runs = [str(run) for run in sorted(tmp_path.glob("runs/text8/study-*/"))]
        if any(word.startswith("runs/folder/") for word in given):
            runs = ["runs/folder/ID"]
        given = [part for word in given for part in (runs if word.endswith("*/") else [word])]
        if "RECORDINGS" in given:
            events = [(1, 2, CLASSES[0])] if given[1] == "detect" else EVENTS
            for one in make_recordings(tmp_path / "RECORDINGS").iterdir():
                make_selections(tmp_path / "TABLES" / f"{one.stem}.selections.txt", events)
            if given[1] == "train":
                given = [*given, *SMALL, "page=false"]
        elif given[1] == "train":
            given = [*tiny(given, TINY["folder"](tmp_path / "own")), "page=false"]
            given.remove("DIR")
        if "runs/folder/ID2" in given or given[1] == "evaluate":  # of which there is one
            given = ["runs/folder/ID" if word.startswith("runs/") else word for word in given]
        if given[1] == "-m":
            bench(given[3:])
        else:
            cli.main(given[1:])
        assert any(capsys.readouterr()), words


def test_runs_of_studies_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    printed = [words for words in COMMANDS if "recipes/study/study.yaml" in words]
    for words in printed:
        with pytest.raises(SystemExit, match=r"none of the \d+ runs is finished"):
            cli.main([*words[1:], f"runs={tmp_path}", "--results"])
    assert printed


def test_commands_of_results_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take hours, so they are only parsed."""
    from spaudio.bench import __main__ as bench
    from spaudio.bench.peers import __main__ as peers

    monkeypatch.setattr(bench, "check_output", lambda *given, **options: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    accepted: list[str] = []

    def stop(chosen: Namespace, *_: object) -> NoReturn:
        accepted.append(chosen.command)
        raise SpaudioError("parsed")

    def take_no_turn(sides: Sequence[Sequence[str]], *_: object) -> NoReturn:
        accepted.append(sides[1][2])
        sys.exit("parsed")

    monkeypatch.setattr(peers, "run_sides", take_no_turn)
    monkeypatch.setattr(peers, "run_until", take_no_turn)
    modules = {"spaudio.bench": bench.main, "spaudio.bench.peers": peers.main}
    for module in (cli, bench):
        for name, (_, *others) in module._COMMANDS.items():
            monkeypatch.setitem(module._COMMANDS, name, (stop, *others))
    printed = [words for page in RESULTS for words in commands(page) if words[0] != ".venv/bin/uv"]
    for words in printed:
        words = [word for word in words if not word.startswith("OMP_NUM_THREADS=")]
        with pytest.raises(SystemExit, match="parsed"):
            modules[words[2]](words[3:]) if words[1] == "-m" else cli.main(words[1:])
    assert len(accepted) == len(printed) > 5
