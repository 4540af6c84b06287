"""Model card: what a published model was trained on, how it was measured, and its limits."""

from collections.abc import Mapping, Sequence
from typing import Any

from spaudio.audio.manifest import is_nothing
from spaudio.errors import ConfigError, counted, how_to_install
from spaudio.io.escape import for_markdown
from spaudio.report.floor import TRIVIAL
from spaudio.report.report_files import pretraining
from spaudio.report.tables import markdown_table, score_text
from spaudio.version import __version__

NOT_GIVEN = "that of your data"  # the default of recipes/folder


def model_card(
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    classes: Sequence[str],
    *,
    longest_seconds: float,
    multi_label: bool,
    command: str | None,
) -> str:
    """Returns a card with metadata, as the Hugging Face Hub reads it.

    Args:
        settings: Settings of the run, as in its ``config.yaml``.
        report: Content of its ``report.json``. Folders are shortened to their last part, so that
            only a Hub id holds a slash.
        classes: Class names.
        longest_seconds: Longest sound that is not cut into windows.
        multi_label: Whether a clip may have several classes.
        command: The command that made the run, if it is known.

    Raises:
        ConfigError: If huggingface_hub is missing.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError as error:
        raise ConfigError(
            f"a model card needs huggingface_hub ({error}): {how_to_install('hub')}"
        ) from error
    about, test, metric = settings["about"], report["test"], report["metric"]
    title = str(about["title"])
    base = report.get("base")  # the pretrained encoder
    data = ModelCardData(
        library_name="spaudio",
        pipeline_tag="audio-classification",
        base_model=base["source"] if base and "/" in base["source"] else None,
        tags=["audio", *(["filterbank"] if settings["filter"]["name"] != "none" else [])],
        metrics=[metric],
        model_name=f"{settings['recipe']}, {settings['filter']['name']}",
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                dataset_type=str(settings["recipe"]),
                dataset_name=title,
                dataset_split="test",
                metric_type=metric,
                metric_value=test[metric],
            )
        ],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {for_markdown(settings['recipe'])}: {for_markdown(title)}",
        _introduction(settings, report, classes, multi_label),
        "## Use",
        _use(base),
        "## Data",
        _lines(_data(settings, report)),
        "## Results",
        _results(report),
        "## Limits",
        _lines(_limits(report, longest_seconds, multi_label)),
        "## Training",
        *([] if command is None else [f"```sh\n{command}\n```"]),
        f"spaudio {report['versions']['spaudio']}, seed {report['seed']}, "
        f"{report['num_params']:,} parameters. Card written by spaudio {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _use(base: Mapping[str, str] | None) -> str:
    """Returns how the model is loaded, with the pretrained encoder that it needs, if any."""
    extras, given, encoder = "recipes,hub", "", ""
    if base is not None:
        extras = "pretrained"  # includes the others
        encoder = f"\n\nEncoder: {for_markdown(base['source'])} (SHA-256 {base['sha256'][:12]})"
        if "/" not in base["source"]:
            given = ', base="FOLDER"'
            encoder += ", which was a local folder and is not included: give it as `FOLDER`"
    return f"""```python
import spaudio  # pip install '.[{extras}]' in a clone of spaudio

model = spaudio.load("OWNER/NAME"{given})  # this repository, or the folder of this file
print(model.predict("a.wav").top(3))
```{encoder}"""


def _introduction(
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    classes: Sequence[str],
    multi_label: bool,
) -> str:
    what = "one or more of" if multi_label else "one of"
    names = ", ".join(map(for_markdown, classes[:20]))
    more = f" and {len(classes) - 20} more (see `inputs.json`)" if len(classes) > 20 else ""
    tokens = report["tokens"]
    return (
        f"Classifies mono sound at {tokens['sample_rate']:,} Hz as {what} {len(classes)} "
        f"classes: {names}{more}. Tokens: {tokens['front_end']}{_filters(settings)}."
    )


def _filters(settings: Mapping[str, Any]) -> str:
    """Describes the filters and where they are; empty if there are none."""
    name, model = settings["filter"]["name"], settings["model"]
    pretrained = "source" in model
    layers = model["adapt_layers" if pretrained else "filter_layers"]
    if name == "none" or layers == []:
        return ""
    before = model["filter_place"] == "attention" and not pretrained
    where = "each layer"
    if layers is not None:
        numbers = sorted(set(layers))
        where = f"layer{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} (from 0)"
    return f"; filter {'before the attention of' if before else 'after'} {where}: {name}"


def _data(settings: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    about, clips = settings["about"], report["clips"]
    trained_on = report.get("trained_on_valid")  # not in reports of earlier versions
    licence = str(about["licence"])
    if licence == NOT_GIVEN:
        licence = "not stated (set it with `about.licence`)"
    else:
        licence = for_markdown(licence)
    lines = [
        f"{for_markdown(about['title'])}; licence of the data: {licence}",
        f"clips: {clips['train']:,} training, {clips['valid']:,} validation, {clips['test']:,} "
        "test" + ("; the model was trained on the validation clips too" if trained_on else ""),
        *(f"split: {line}" for line in _split(settings, report)),
    ]
    lines += map(for_markdown, pretraining(report))
    if about["url"]:
        lines.append(f"source: <{about['url']}>")
    if report.get("skipped"):
        lines.append(f"left out, as missing or unusable: {counted(report['skipped'], 'clip')}")
    return lines


def _split(settings: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Describes how the clips were split."""
    fold = settings.get("fold")
    lines = [] if fold is None else [f"official fold {fold} for testing"]
    return [*lines, *map(for_markdown, report["split"])]


def _results(report: Mapping[str, Any]) -> str:
    test, floor, metric = report["test"], report["floor"], report["metric"]
    measured = f"**{test[metric]:.4f}**"
    if "interval" in test:
        low, high = test["interval"]
        measured += f" (95 % interval {low:.4f}-{high:.4f})"
    rows = {
        "this model": measured,
        **(
            {"the same, with test groups aligned (`--align`)": f"{aligned['accuracy']:.4f}"}
            if (aligned := report.get("aligned"))
            else {}
        ),
        "classical floor (log-mel and MFCC statistics)": f"{floor['svm']:.4f}",
        TRIVIAL[metric]: f"{floor['majority']:.4f}",
    }
    table = [{"On the test split": name, metric: value} for name, value in rows.items()]
    if not all("f1" in row for row in test["per_class"].values()):
        return markdown_table(table)
    per_class = [
        {
            "Class": for_markdown(name),
            "Precision": score_text(row["precision"]),
            "Recall": score_text(row["recall"]),
            "Test clips": str(int(row["support"])),
        }
        for name, row in test["per_class"].items()
    ]
    return f"{markdown_table(table)}\n\n{markdown_table(per_class)}"


def _limits(report: Mapping[str, Any], longest_seconds: float, multi_label: bool) -> list[str]:
    test, floor, metric = report["test"], report["floor"], report["metric"]
    tokens = report["tokens"]
    top = tokens["sample_rate"] / 2
    if tokens["front_end"] != "waveform":  # whose filters only start between f_min and f_max
        top = tokens["f_max"] or top
    lines = [
        f"sounds longer than {longest_seconds:.4g} s are cut into windows of this length, whose "
        "probabilities are averaged",
        f"frequencies above {top:,.0f} Hz are not used",
        "the scores hold for sounds recorded like those of the test split; others were not "
        "measured",
    ]
    if not multi_label and not any(map(is_nothing, test["per_class"])):
        lines.append(
            "every sound is assigned to one of the classes, even a sound of another kind; check "
            "the probability"
        )
    if test[metric] <= floor["svm"]:
        lines.append("**the model does not beat the classical floor**")
    return lines


def _lines(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
