"""From a recipe's YAML and a command line to checked settings."""

from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch

import spaudio.conf
from spaudio.errors import ConfigError
from spaudio.experiment.build import build_classifier, build_language_model
from spaudio.experiment.compose import compose, expand
from spaudio.experiment.recipes import prep_function
from spaudio.experiment.schemas import prep_schema, read_settings
from spaudio.experiment.settings import AudioSettings, PretrainedConfig, TextSettings
from spaudio.filters import FILTERS
from tests import RECIPES
from tests.fixtures.tiny_recipes import TINY

NAMES = sorted(path.parent.name for path in RECIPES.glob("*/run.py"))
CONF = Path(spaudio.conf.__file__).parent


def test_every_recipe_has_a_readme_and_a_tiny_data_set() -> None:
    assert sorted(TINY) == NAMES
    for name in NAMES:
        assert (RECIPES / name / "README.md").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_composes(name: str) -> None:
    settings = compose(RECIPES / name, ["preset=debug"])
    assert settings.recipe == name
    assert settings.model.dim == 16
    assert settings.trainer.epochs == 2
    assert read_settings(settings.as_dict()).as_dict() == settings.as_dict()
    if isinstance(settings, TextSettings):
        build_language_model(settings)
        return
    build_classifier(settings, 10)
    # A learned front-end by one override has the frames of the recipe.
    learned = compose(RECIPES / name, ["tokens=waveform"])
    assert isinstance(learned, AudioSettings)
    assert learned.tokens.learned
    assert learned.tokens.token_seconds == settings.tokens.token_seconds
    assert learned.tokens.sample_rate == settings.tokens.sample_rate


@pytest.mark.parametrize(
    ("recipe", "overrides", "taps"),
    [
        ("fsdd", ["filter=bank"], 8),  # a token is 20 ms
        ("folder", ["filter=fir", "tokens.hop=0.008"], 5),
        ("ravdess", ["filter=depthwise"], 2),
        ("esc50", ["filter=adaptive", "tokens.stack=16"], 2),  # the fewest
    ],
)
def test_kernels_in_milliseconds(recipe: str, overrides: list[str], taps: int) -> None:
    settings = compose(RECIPES / recipe, [*overrides, "filter.milliseconds=160"])
    assert settings.filter_options["kernel_size"] == taps
    assert read_settings(settings.as_dict()).as_dict() == settings.as_dict()
    build_classifier(settings, 2)  # type: ignore[arg-type]


def test_kernels_in_milliseconds_are_for_audio() -> None:
    with pytest.raises(ConfigError, match="characters have no length in time"):
        compose(RECIPES / "text8", ["filter=bank", "filter.milliseconds=160"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.label_smoothing=0.3"], "label_smoothing has no effect on text"),
        (["trainer.max_tokens=5"], "max_tokens has no effect on text"),
        (["model.positions=learned", "model.max_tokens=10"], "is more than model.max_tokens=10"),
        (["eval.max_characters=128"], "eval.max_characters=128 must be more than context=128"),
    ],
)
def test_settings_that_a_text_cannot_have(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(RECIPES / "text8", overrides)


def test_the_stride_of_a_text_is_checked_at_once() -> None:
    with pytest.raises(ConfigError, match=r"eval\.stride=64 must be at most context=32; .*=16"):
        compose(RECIPES / "text8", ["context=32"])


def test_every_choice_of_every_group_composes() -> None:
    choices = [
        f"{group}={file.stem}"
        for group in ("model", "tokens", "augment")
        for file in sorted((CONF / group).glob("*.yaml"))
    ]
    assert len(choices) > 6
    for choice in (*choices, "augment=none"):
        compose(RECIPES / "folder", [choice])
    for name in FILTERS:
        assert compose(RECIPES / "folder", [f"filter={name}"]).filter.name == name
    for preset in ("tiny", "paper", "base"):
        settings = compose(RECIPES / "text8", [f"preset={preset}"])
        assert settings.model.causal
        assert settings.model.max_tokens == settings.context


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.widht=3"], r"unknown setting 'model\.widht'"),
        (["epochs=3"], r"did you mean trainer\.epochs"),
        (["sede=1"], "did you mean seed"),
        (["filtre=bank"], "did you mean filter"),
        (["traner.epochs=3"], "did you mean trainer"),
        # What the chosen filter has not: its options are those of its class.
        (["filter=none", "filter.kernel_size=8"], r"unknown setting 'filter\.kernel_size'"),
        (["filter=bank", "filter.kernel=8"], r"did you mean filter\.kernel_size"),
        (["+seed=1"], "cannot be added"),
        (["seed=0,1"], "add -m to run them all"),
        (["source=a(b"], r"cannot read 'source=a\(b'; expected key=value, quoted"),
        (["filter=haar", "filter.milliseconds=80"], r"filter=haar has no kernel_size"),
        (["filter=bank", "filter.milliseconds=0"], "must be positive; got 0"),
        (["filter=bank", "filter.milliseconds=80", "filter.kernel_size=4"], "give one"),
        (["hydra/launcher=joblib"], "jobs=N"),
        # Hydra's groups take a name, or settings of the choice.
        (["filter=null"], r"unknown filter 'null'; .*known: adaptive, bank, .*, none$"),
        (["filter=7"], r"unknown filter '7'; known: adaptive, bank"),
        (["augment=NULL"], r"unknown augment 'NULL'; known: none, sounds"),
        (["pretrain=true"], r"unknown pretrain 'true'; known: masked, none"),
        (["tokens=1.5"], r"unknown tokens '1\.5'; known: spectrogram"),
        (["model=[1,2]"], r"unknown model '\[1,2\]'; known: medium"),
        (["model=[small,tiny]"], r"unknown model '\[small,tiny\]'; .*known: medium"),
        (["preset=7"], r"unknown preset '7'; known: debug"),
        (["filter={kernel: 8}"], r"give each setting by its own name, filter\.NAME=VALUE"),
        (["trainer={epochs: 2}"], r"give each setting by its own name, trainer\.NAME=VALUE"),
        (["run_id=[a]"], r"run_id=\[a\]; expected text, quoted where it holds brackets"),
        (["cluster_options=3"], "cluster_options=3; expected a mapping"),
        (["seed=null"], "seed=null; expected a value, not null"),
        (["model.source=x"], r"model\.source is a setting of model=pretrained; give that, too"),
        (["dim=64"], r"unknown setting 'dim'; did you mean .*model\.dim"),  # not pretrained's own
        (["=3"], "'=3' names no setting"),
        (["filter=multiscale", "filter.scales=[1,2]"], r"filter\.scales=\[1,2\]; expected a list"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        compose(RECIPES / "fsdd", overrides)


@pytest.mark.parametrize("value", ["/data/日本/ü", "~/x", "/x/R&D", "/a=b", "a b", "x#1", "$HOME"])
def test_plain_values_need_no_quotes(value: str) -> None:
    assert compose(RECIPES / "folder", [f"source={value}"]).prep_options["source"] == value


@pytest.mark.parametrize("value", ["2024_05", "1.50", "1e5", "TRUE"])
def test_text_is_kept_as_it_was_written(value: str) -> None:
    settings = compose(
        RECIPES / "folder",
        [f"source={value}", f"run_id={value}", f"data={value}", "pretrain=masked",
         f"pretrain.source={value}"],
    )  # fmt: skip
    assert isinstance(settings, AudioSettings)
    assert (settings.prep_options["source"], settings.run_id, settings.data) == (value,) * 3
    assert settings.pretrain.source == value
    model = compose(RECIPES / "folder", ["model=pretrained", f"model.source={value}"]).model
    assert isinstance(model, PretrainedConfig)
    assert model.source == value


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("skip_badd: true", r"unknown setting 'skip_badd'; did you mean skip_bad\?"),
        ("trainer: {epoch: 3}", r"unknown setting 'trainer\.epoch'; did you mean trainer\.epochs"),
        ("trainer: {epochs: ten}", r"trainer\.epochs: Value 'ten' .* to Integer"),
        ("filter: bank", "filter: bank is a choice; .* as - override filter: bank"),
    ],
)
def test_what_is_wrong_in_the_file_of_a_recipe_is_named(
    line: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "prep.py").write_text("def prepare(work, *, source: str = ''): ...\n")
    whole = f"defaults: [audio, _self_]\nrecipe: own\nprep: prep\n{line}\n"
    (tmp_path / "config.yaml").write_text(whole)
    with pytest.raises(ConfigError, match=rf"config\.yaml: {named}"):
        compose(tmp_path)
    (tmp_path / "config.yaml").write_text(whole.replace("defaults:", "default:"))
    with pytest.raises(ConfigError, match="no list defaults: that begins with audio or text"):
        compose(tmp_path)


def test_a_script_may_evaluate_its_annotations_late(tmp_path: Path) -> None:
    (tmp_path / "prep.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Row:\n    name: str\n"
        "def prepare(work, *, mic: str = 'a'): return Row(mic)\n"
    )
    prepare = prep_function(tmp_path, "prep")
    assert prepare(None).name == "a"
    assert prep_schema(AudioSettings, prepare)


def test_arguments_of_a_data_set_that_settings_cannot_have_are_named() -> None:
    def bare(work: Path, *, mic="a"): ...  # type: ignore[no-untyped-def]
    def choice(work: Path, *, mic: Literal["a", "b"] = "a") -> None: ...
    def needed(work: Path, *, mic: str) -> None: ...

    def unlike(work: Path, *, mic: int = "a") -> None: ...  # type: ignore[assignment]

    for prepare, said in (
        (bare, "annotated as"), (choice, "annotated as"), (needed, "no default"),
        (unlike, "does not fit its annotation"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"prepare's 'mic' .*{said}"):
            prep_schema(AudioSettings, prepare)


def test_a_preset_may_be_null_as_in_the_recipes() -> None:
    for recipe in ("folder", "text8"):  # where it is null, and where it is not
        settings = compose(RECIPES / recipe, ["preset=null"])
        assert settings.model.dim == type(settings)().model.dim
    assert compose(RECIPES / "folder", ["preset=null", "model=tiny"]).model.dim == 64


def test_a_sweep_expands_in_the_order_of_its_values() -> None:
    runs = expand(["filter=none,bank", "source='a,b'", "model.filter_layers=[0,1]", "seed=0,1"])
    assert [(run[0], run[3]) for run in runs] == [
        ("filter=none", "seed=0"), ("filter=none", "seed=1"),
        ("filter=bank", "seed=0"), ("filter=bank", "seed=1"),
    ]  # fmt: skip
    assert {run[1] for run in runs} == {"source='a,b'"}
    assert {run[2] for run in runs} == {"model.filter_layers=[0,1]"}
    sources = [compose(RECIPES / "folder", run) for run in expand(["source=2024_05,TRUE, 1.50"])]
    assert [one.prep_options["source"] for one in sources] == ["2024_05", "TRUE", "1.50"]
    assert expand(["seed=choice(1,2)"]) == [["seed=1"], ["seed=2"]]
    for given, said in (("range(3,0)", "holds no value"), ("range(0,9,0)", "must not be zero")):
        with pytest.raises(ConfigError, match=rf"seed=range.*{said}; list .*seed=a,b,c"):
            expand([f"seed={given}"])


def test_a_data_set_brings_its_own_settings() -> None:
    settings = compose(RECIPES / "folder", ["source=12", "group_regex='(a\\d+),b'"])
    assert settings.prep_options["source"] == "12"
    assert settings.prep_options["group_regex"] == "(a\\d+),b"
    other = compose(RECIPES / "folder", ["prep=fsdd", "split=speaker"])
    assert other.prep_options == {"source": None, "split": "speaker", "test_speaker": None}
    with pytest.raises(ConfigError, match="unknown setting 'split'"):
        compose(RECIPES / "folder", ["split=speaker"])


def test_the_seed_decides_the_parameters() -> None:
    for recipe, build in (("folder", partial(build_classifier, classes=3)),
                          ("text8", build_language_model)):  # fmt: skip
        one, same, other = (
            build(compose(RECIPES / recipe, ["preset=debug", f"seed={seed}"])).encoder.state_dict()
            for seed in (5, 5, 6)
        )
        name = "layers.0.attention.qkv.weight"
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])


def test_the_names_of_cluster_options_are_free() -> None:
    overrides = ["cluster_options={timeout_min: 60}", "cluster_options.gpus_per_node=1"]
    options = compose(RECIPES / "folder", overrides).cluster_options
    assert options == {"timeout_min": 60, "gpus_per_node": 1}


def test_settings_of_a_run_are_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in them is resolved, whatever they look like."""
    monkeypatch.setenv("SECRET", "told")
    settings = compose(RECIPES / "folder", ["source=x"]).as_dict()
    for text in ("${oc.env:SECRET}", "${seed}", "\\${a}", "${", "a'b"):
        settings["source"] = settings["data"] = text
        read = read_settings(settings)
        assert read.prep_options["source"] == read.data == text


def test_a_folder_that_a_model_needs_later_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny = tmp_path / "models" / "tiny"
    tiny.mkdir(parents=True)
    for given, kept in (("models/tiny", tiny), ("~/models/tiny", tiny), ("openai/tiny", None)):
        overrides = ["source=x", "model=pretrained", f"model.source={given}", "data=~/d"]
        settings = compose(RECIPES / "folder", overrides)
        assert isinstance(settings.model, PretrainedConfig)
        assert settings.model.source == str(kept or given)
        assert settings.data == str(tmp_path / "d")
