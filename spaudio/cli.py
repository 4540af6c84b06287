"""Trains and uses audio classifiers.

spaudio train DIR             trains on a folder of sounds, like recipes/folder
spaudio new NAME DIR          writes an editable recipe for a folder of sounds
spaudio datasets              lists recipes: licence, size, and whether the data are on disk
spaudio compare RUN...        compares runs: mean ± std over seeds, and paired differences
spaudio filters RUN           draws kernels and their responses, before and after training
spaudio predict MODEL FILE... classifies audio files and folders
spaudio detect MODEL FILE...  finds events in long recordings, as table, labels or selections
spaudio explain MODEL FILE    shows which seconds and bands of a sound decided its class
spaudio listen MODEL          classifies live sound from a microphone
spaudio export MODEL          exports the model with its front-end, as ONNX or pt2
spaudio study FILE            executes the runs of a study; finished runs are skipped
spaudio generate RUN          generates text with a language model, character by character
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaudio.errors import ConfigError, SpaudioError, how_to_install
from spaudio.experiment.recipes import recipes_folder
from spaudio.io.output import check_output
from spaudio.io.plain_warnings import plain_warnings
from spaudio.report.escape import printable
from spaudio.version import __version__

if TYPE_CHECKING:
    from spaudio.experiment.inputs import Inputs
    from spaudio.inference.annotated import Annotations
    from spaudio.inference.predict import Predictor
    from spaudio.report.events import Recording

_SCORED_AT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # thresholds of `detect --table`


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a sub-command; a user error prints one line and exits with code 1."""
    parser = argparse.ArgumentParser(prog="spaudio", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (function, text, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(run_command=function)
        for option, settings in options.items():
            command.add_argument(option, **settings)
    plain_warnings()
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command == "study" and not any(word.startswith("-") for word in rest):
        chosen.overrides += rest  # argparse ends a list at an option
    elif rest and chosen.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    chosen.rest = rest
    try:
        chosen.run_command(chosen)
    except (SpaudioError, OSError) as error:
        sys.exit(f"error: {printable(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; {how_to_install('recipes')}")


def _train(chosen: argparse.Namespace) -> None:
    """Runs the recipe for folders of sounds."""
    folder, given = None, [*chosen.settings, *chosen.rest]  # argparse ends the list at an option
    if given and not given[0].startswith("-") and ("=" not in given[0] or Path(given[0]).exists()):
        folder, *given = given
    _check_train(chosen, folder, given)
    from spaudio.experiment.compose import quoted
    from spaudio.experiment.entry import main as run_recipe

    if folder is not None:
        given = [f"source={quoted(folder)}", *given]
    script = recipes_folder() / "folder" / "run.py"
    options = ["-m"] * chosen.multirun + ["--cfg"] * chosen.cfg
    run_recipe(str(script), [*options, *given], program="spaudio train")


def _check_train(chosen: argparse.Namespace, folder: str | None, given: Sequence[str]) -> None:
    """Checks the form of the words after ``spaudio train``, which can be told at once."""
    if folder is None and not given and not chosen.cfg:
        raise ConfigError("name a folder of sounds: spaudio train DIR")
    for word in given:
        if word.startswith("-"):
            name = word.lstrip("-")
            setting = name if "=" in name else f"{name or 'KEY'}=VALUE"
            raise ConfigError(f"{word}: settings have no dashes: {setting}")
        if "=" not in word:
            raise ConfigError(
                f"{word!r}: expected one folder, then settings: spaudio train DIR KEY=VALUE ..."
            )
        if folder is not None and word.startswith("source="):
            raise ConfigError(f"the folder is {folder}, and {word}; leave one of them out")


def _new(chosen: argparse.Namespace) -> None:
    """Writes a recipe into the current folder."""
    from spaudio.experiment.new_recipe import write_recipe
    from spaudio.report.run_command import this_python

    made = write_recipe(chosen.name, chosen.source, Path())
    command = f"{this_python()} {made / 'run.py'}"
    sys.stdout.write(f"{made}: edit config.yaml and prep.py, then: {command}\n")


def _datasets(chosen: argparse.Namespace) -> None:
    """Prints the table of recipes."""
    from spaudio.experiment.datasets import find_recipes, list_datasets
    from spaudio.report.tables import show

    show(list_datasets(find_recipes(chosen.recipes), chosen.data))


def _compare(chosen: argparse.Namespace) -> None:
    """Prints a comparison table of runs, and writes it if requested."""
    from spaudio.experiment.compare import compare_runs

    inputs = [*chosen.runs, *([] if chosen.step_costs is None else [chosen.step_costs])]
    _check_table(chosen, inputs)
    _check_csv(chosen, inputs)
    compare_runs(
        chosen.runs,
        only=chosen.only.split(",") if chosen.only else ("*",),
        over=chosen.over,
        output=chosen.output,
        table=chosen.csv,
        convergence=chosen.convergence or chosen.step_costs is not None,
        step_costs=chosen.step_costs,
        baseline=chosen.baseline,
    )


def _check_table(chosen: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Checks the output paths of a comparison: its Markdown file and the figures beside it."""
    from spaudio.experiment.compare import figures_beside

    if chosen.output is not None:
        for path in (chosen.output, *figures_beside(chosen.output)):
            check_output(path, "--output", inputs=inputs, force=chosen.force)


def _check_csv(chosen: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Checks the path of a CSV file of results, which is not that of the Markdown file."""
    if chosen.csv is None:
        return
    check_output(chosen.csv, "--csv", inputs=inputs, force=chosen.force)
    if chosen.output is not None and chosen.csv.resolve() == chosen.output.resolve():
        raise ConfigError(f"--output and --csv both name {chosen.csv}; name two files")


def _study(chosen: argparse.Namespace) -> None:
    """Runs a study and compares its runs, or prints the results in a CSV file."""
    from spaudio.experiment.compare import compare_runs
    from spaudio.experiment.study import finished_runs, plan_study, read_runs, run_study
    from spaudio.report.convergence import NoBaselineError
    from spaudio.report.study_records import read_results
    from spaudio.report.study_report import show_results

    _check_study_output(chosen)
    if chosen.file.suffix == ".csv":
        given = [f"--{name}" for name in ("only", "data", "seeds") if getattr(chosen, name)]
        if unused := [*chosen.overrides, *given]:
            raise ConfigError(
                f"{unused[0]} has no effect on the results in {chosen.file}; leave it out, or name "
                "the study's YAML file"
            )
        show_results(read_results(chosen.file), output=chosen.output)
        return
    only, data = (names.split(",") if names else None for names in (chosen.only, chosen.data))
    try:
        seeds = [int(seed) for seed in chosen.seeds.split(",")] if chosen.seeds else None
    except ValueError as error:
        raise ConfigError(
            f"--seeds={chosen.seeds}; expected whole numbers, such as 0,1,2"
        ) from error
    if wrong := [one for one in chosen.overrides if "=" not in one]:
        raise ConfigError(
            f"{wrong[0]!r}: expected [DATA:]KEY=VALUE; names are joined by commas, as in --only a,b"
        )
    runs = plan_study(chosen.file, chosen.overrides, only=only, data=data, seeds=seeds)
    if not chosen.results:
        run_study(runs, chosen.jobs)
    runs = finished_runs(runs)
    if runs[0].data:
        show_results(read_runs(runs), output=chosen.output, table=chosen.csv)
        return
    try:
        compare_runs([run.folder for run in runs], output=chosen.output, table=chosen.csv)
    except NoBaselineError as error:
        if chosen.output is not None or chosen.csv is not None:
            raise
        sys.stderr.write(f"the finished runs cannot be compared: {printable(error)}\n")


def _check_study_output(chosen: argparse.Namespace) -> None:
    """Checks the output files of a study. A page with a place for results may exist."""
    from spaudio.experiment.compare import figures_beside
    from spaudio.report.marked_page import has_place
    from spaudio.report.study_report import charts_beside

    if chosen.csv is not None and chosen.file.suffix == ".csv":
        raise ConfigError(f"--csv {chosen.csv}: the results already come from a CSV file")
    _check_csv(chosen, [chosen.file])
    if chosen.output is None:
        return
    placed = has_place(chosen.output)
    paths = [*charts_beside(chosen.output), *figures_beside(chosen.output)]
    for path in paths if placed else [chosen.output, *paths]:
        check_output(path, "--output", inputs=[chosen.file], force=placed or chosen.force)


def _filters(chosen: argparse.Namespace) -> None:
    """Draws the filters of a run and of its learned front-end, and prints the paths."""
    from spaudio.experiment.draw_filters import draw_run

    drawn, said = draw_run(chosen.run)
    sys.stdout.writelines(f"{printable(line)}\n" for line in (*drawn, *said))
    if not drawn:
        sys.stdout.write(f"{printable(chosen.run)} has no filter with kernels\n")


def _open(chosen: argparse.Namespace, window: float | None = None) -> "Predictor":
    """Opens the run or saved model that a command names."""
    from spaudio.inference.predict import Predictor
    from spaudio.inference.saved import fetch

    return Predictor(fetch(chosen.run), window, chosen.base)


def _predict(chosen: argparse.Namespace) -> None:
    """Prints or writes predictions; unusable files are reported last and fail the command."""
    if chosen.top < 1:
        raise ConfigError(f"--top {chosen.top}; expected at least 1")
    _check_unsure(chosen.unsure)
    _check_seconds(chosen)
    if chosen.output is not None:
        inputs = [chosen.run, *chosen.paths]
        check_output(chosen.output, "--output", inputs=inputs, force=chosen.force)
    from spaudio.audio.find import find_files
    from spaudio.inference.predict import predict_files
    from spaudio.report.predictions import render

    predictor = _open(chosen, chosen.window)
    _check_unsure(chosen.unsure, predictor.inputs.classes)
    files, bad_folders = find_files(chosen.paths)
    predictions, bad = predict_files(predictor, files, chosen.align)
    bad = bad_folders + bad
    if not predictions and chosen.format != "json":  # which lists the unusable files
        _tell_bad(bad, skip=chosen.skip_bad, some=False)
        return
    text = render(
        chosen.format,
        predictions,
        top=chosen.top,
        window_seconds=predictor.window_seconds,
        unsure=chosen.unsure,
        bad=bad,
    )
    _write(chosen.output, text)
    _tell_bad(bad, skip=chosen.skip_bad, some=bool(predictions))


def _write(output: Path | None, text: str) -> None:
    """Writes to a file, or to the terminal if there is none."""
    from spaudio.io.atomic import write_atomic

    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(output, text.encode())


def _tell_bad(bad: Sequence[tuple[Path, str]], *, skip: bool, some: bool) -> None:
    """Reports unusable files; exits with code 1 unless they may be skipped."""
    how = "skipped" if skip and some else "error"
    for path, reason in bad:
        sys.stderr.write(f"{how}: {printable(path)}: {printable(reason)}\n")
    if bad and not (skip and some):
        sys.exit(1)


def _tell_no_rest(inputs: "Inputs", remedy: str) -> None:
    """Warns that every sound gets a class, unless one is for other sounds, or several may apply."""
    from spaudio.audio.manifest import is_nothing

    if not inputs.multi_label and not any(map(is_nothing, inputs.classes)):
        sys.stderr.write(
            "the run has no class for other sounds, so every sound is assigned to one of its "
            f"classes; train with background=RECORDINGS, or {remedy}\n"
        )


def _detect(chosen: argparse.Namespace) -> None:
    """Prints or writes the events in recordings; unusable files fail the command."""
    _check_seconds(chosen)
    if not 0 < chosen.threshold <= 1:
        raise ConfigError(
            f"--threshold {chosen.threshold:g}; expected a probability above 0, up to 1"
        )
    from spaudio.audio.find import find_files

    files, bad_folders = find_files(chosen.paths)
    if not files:
        _tell_bad(bad_folders, skip=chosen.skip_bad, some=False)
        return
    output, form = chosen.output, chosen.format
    targets = _event_files(output, form, files)
    inputs = [chosen.run] if targets else [chosen.run, *chosen.paths]
    inputs += [chosen.table] * (chosen.table is not None)
    written = [*targets.values()] or [output] * (output is not None)
    new_folder = output if targets and output is not None and not output.exists() else None
    for target in [new_folder] if new_folder else written:
        check_output(target, "--output", inputs=inputs, force=chosen.force)
    from spaudio.inference.annotated import read_annotations
    from spaudio.inference.detect import detect
    from spaudio.report.events import write_audacity, write_csv, write_raven

    predictor = _open(chosen, chosen.window)
    annotations = None
    if chosen.table is not None:
        annotations = read_annotations(
            chosen.table,
            chosen.paths,
            files,
            predictor.inputs.classes,
            multi_label=predictor.inputs.multi_label,
        )
    _tell_no_rest(predictor.inputs, "raise --threshold")
    if new_folder:
        new_folder.mkdir()
    recordings, bad = detect(
        predictor,
        files,
        hop=chosen.hop,
        threshold=chosen.threshold,
        other_thresholds=() if annotations is None else _SCORED_AT,
        timed=chosen.times,
    )
    if not recordings:
        _tell_bad(bad_folders + bad, skip=chosen.skip_bad, some=False)
        return
    if form == "csv":
        _write(output, write_csv(recordings))
    else:
        top = predictor.front_end.config.top
        for one in recordings:
            text = write_audacity(one) if form == "audacity" else write_raven(one, top)
            _write(targets.get(one.path, output), text)
    for one in recordings:
        sys.stderr.write(
            f"{printable(one.path)}: {len(one.events)} events in {one.seconds:.1f} s "
            f"(window {predictor.event_seconds:.3g} s){', all silent' if one.silent else ''}\n"
        )
    if annotations is not None:
        _tell_scores(annotations, recordings, chosen.threshold)
    _tell_bad(bad_folders + bad, skip=chosen.skip_bad, some=bool(recordings))


def _tell_scores(
    annotations: "Annotations", recordings: Sequence["Recording"], threshold: float
) -> None:
    """Prints how well the events fit the annotations, beside the messages on each recording."""
    from spaudio.report.event_scores import score_events, score_rows, score_thresholds
    from spaudio.report.tables import show_rows

    scored = [one for one in recordings if one.path in annotations.events]
    hours = sum(one.seconds for one in scored) / 3600
    facts = f"recordings: {len(scored)}, hours: {hours:.2f}, threshold: {threshold:g}"
    sys.stderr.writelines(f"{printable(note)}\n" for note in annotations.notes)
    if not scored:  # the reasons are told for each file
        return
    scores = score_events(scored, annotations.events, annotations.labels)
    show_rows(score_rows(scores, hours), f"Events compared with annotations ({facts})", sys.stderr)
    scores = score_thresholds(scored, annotations.events, annotations.labels)
    show_rows(score_rows(scores, hours, "threshold"), "All classes at other thresholds", sys.stderr)


def _event_files(output: Path | None, form: str, files: Sequence[Path]) -> dict[Path, Path]:
    """Chooses where the events of each recording are written, if ``--output`` is a folder.

    Raises:
        ConfigError: If it must be a folder, or two files in it would have the same name.
    """
    if form == "csv" or (len(files) == 1 and not (output and output.is_dir())):
        return {}
    if output is None or (output.exists() and not output.is_dir()):
        raise ConfigError(
            f"--format {form} writes one file per recording; name a folder with --output"
        )
    targets = {file: output / f"{file.name}.{form}.txt" for file in files}
    first: dict[Path, Path] = {}
    for file, target in targets.items():
        if (other := first.setdefault(target, file)) != file:
            raise ConfigError(
                f"{other} and {file} have the same name, and both would be written to {target}; "
                "detect the events of each folder with its own --output"
            )
    return targets


def _explain(chosen: argparse.Namespace) -> None:
    """Prints and draws the seconds and bands that decided the class."""
    _check_seconds(chosen)
    option, output = "--output", chosen.output
    if output is None:
        # A label is arbitrary text, of which a file's name cannot hold all.
        label = "" if chosen.label is None else "." + re.sub(r"[^\w-]+", "_", chosen.label)
        option, output = "the default --output", Path(f"{chosen.file.stem}{label}.explained.png")
    if output.suffix.lower() not in (".png", ".svg"):
        raise ConfigError(f"--output {output}: the name of a figure must end in .png or .svg")
    check_output(output, option, inputs=[chosen.run, chosen.file], force=chosen.force)
    from spaudio.inference.explain import explain_sound

    predictor = _open(chosen, chosen.window)
    found = explain_sound(predictor, predictor.read(chosen.file), chosen.label)
    end = found.start + len(found.waveform) / found.sample_rate
    lines = [f"{found.label} {found.confidence:.4f}, from {found.start:.2f} to {end:.2f} s"]
    for unit, digits, parts in (("s", 2, found.intervals), ("Hz", 0, found.bands)):
        for low, high, drop in parts:
            part = f"{low:,.{digits}f} - {high:,.{digits}f} {unit}"
            lines.append(f"  without {part:>20} the log-odds fall by {drop:.2f}")
    if len(lines) == 1:
        lines.append("  no single part supports this class")
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    found.draw(output, chosen.file.name)
    sys.stdout.write(f"{printable(output)}\n")


def _check_seconds(chosen: argparse.Namespace) -> None:
    """Refuses ``--window`` and ``--hop`` if they are no length of time."""
    for name in ("window", "hop"):
        seconds = getattr(chosen, name, None)
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(f"--{name} {seconds:g}; expected a number of seconds above 0")


def _check_unsure(unsure: float | None, classes: Sequence[str] = ()) -> None:
    """Refuses ``--unsure`` if it is no probability, or a class has that name."""
    if unsure is not None and not 0 <= unsure <= 1:
        raise ConfigError(f"--unsure {unsure}; expected a probability from 0 to 1")
    from spaudio.report.predictions import UNSURE

    if unsure is not None and UNSURE in classes:
        raise ConfigError(f"--unsure: the run has a class named {UNSURE!r}; leave the option out")


def _listen(chosen: argparse.Namespace) -> None:
    """Prints predictions as they arrive, until Ctrl-C or the end of the file."""
    _check_unsure(chosen.unsure)
    _check_seconds(chosen)
    if None not in (chosen.file, chosen.device):
        raise ConfigError(f"--device {chosen.device} has no effect with --file; leave one out")
    from spaudio.inference.listen import listen, open_microphone, play_file
    from spaudio.inference.live import Heard, open_stream

    predictor = _open(chosen)
    _check_unsure(chosen.unsure, predictor.inputs.classes)
    _tell_no_rest(predictor.inputs, "give a high --unsure")

    def warn(text: str) -> None:
        sys.stderr.write(f"{printable(text)}\n")

    def say(heard: Heard) -> None:
        label = heard.label if chosen.unsure is None else heard.decision(chosen.unsure)
        sys.stdout.write(f"{heard.end:8.2f} s  {heard.confidence:.2f}  {printable(label)}\n")
        sys.stdout.flush()

    stream = open_stream(predictor, chosen.window, chosen.hop)
    rate = predictor.sample_rate
    source = (
        open_microphone(chosen.device, rate, warn)
        if chosen.file is None
        else play_file(chosen.file, rate)
    )
    listen(stream, source, say, warn)


def _export(chosen: argparse.Namespace) -> None:
    """Writes the exported model and prints its difference from the original."""
    default = chosen.run / f"model.{chosen.format}"
    if chosen.output not in (None, default):
        inputs = [chosen.run, *chosen.clips]
        check_output(chosen.output, "--output", inputs=inputs, force=chosen.force)
    elif chosen.run.is_dir():
        check_output(default, "--output", force=chosen.force)
    from spaudio.export.write import export_run
    from spaudio.inference.saved import fetch

    run = fetch(chosen.run)
    if chosen.output is None and run != chosen.run:
        raise ConfigError(f"{chosen.run} is on the Hub; give the file to write with --output")
    done = export_run(run, chosen.format, chosen.output, chosen.clips, chosen.base)
    sys.stdout.write(f"{printable(done)}\n")


def _generate(chosen: argparse.Namespace) -> None:
    """Prints a prompt and its continuation by a run's model."""
    from spaudio.inference.generate_text import generate_text

    text = generate_text(
        chosen.run,
        chosen.prompt,
        chosen.length,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        seed=chosen.seed,
    )
    sys.stdout.write(f"{chosen.prompt}{text}\n")


_RUN: dict[str, Any] = {"type": Path, "metavar": "RUN", "help": "folder of a run"}
_MODEL: dict[str, Any] = {
    "run": {"type": Path, "metavar": "MODEL", "help": "folder of a run or a saved model, or a "
            "Hugging Face Hub id, OWNER/NAME"},
    "--base": {"metavar": "DIR|ID", "help": "pretrained encoder of the model, if it has moved "
               "since training"},
}  # fmt: skip
_PATHS: dict[str, Any] = {
    "nargs": "+", "type": Path, "metavar": "FILE|DIR", "help": "audio files, or folders of them",
}  # fmt: skip
_UNSURE: dict[str, Any] = {
    "type": float, "metavar": "P", "help": "report unsure if the most probable class has a "
    "probability below P",
}  # fmt: skip
_SKIP_BAD: dict[str, Any] = {
    "action": "store_true", "help": "skip unusable files instead of failing",
}  # fmt: skip
_FORCE: dict[str, Any] = {"action": "store_true", "help": "overwrite existing files"}

# For each command: its function, help text and argparse options.
_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], str, dict[str, Any]]] = {
    "train": (_train, "train on a folder of sounds, one sub-folder per class", {
        "settings": {"nargs": "*", "metavar": "DIR|KEY=VALUE", "help": "folder of sounds, then "
                     "settings, such as table=labels.csv or seed=1; --cfg lists them"},
        "-m": {"dest": "multirun", "action": "store_true",
               "help": "run all combinations of listed values"},
        "--cfg": {"action": "store_true", "help": "print all settings without running"},
    }),
    "new": (_new, "write an editable recipe for a folder of sounds", {
        "name": {"metavar": "NAME", "help": "name of the recipe, and of its folder, which is "
                 "written into the current folder"},
        "source": {"type": Path, "metavar": "DIR", "help": "folder or archive of sounds"},
    }),
    "datasets": (_datasets, "list the recipes and whether their data are on disk", {
        "--recipes": {"type": Path, "default": recipes_folder(), "help": "folder of recipes"},
        "--data": {"type": Path, "default": Path("data"), "help": "folder of prepared data, as the "
                   "setting data="},
    }),
    "compare": (_compare, "compare runs: mean ± std over seeds, and paired differences", {
        "runs": {**_RUN, "nargs": "+", "help": "folder of a run, or CSV file of runs"},
        "--only": {"metavar": "PATTERN,...", "help": "only runs whose names match, such as "
                   "study-bank-?"},
        "--over": {"metavar": "SETTING", "help": "also average over this setting, such as "
                   "test_speaker; with a single seed, ± is that over the values of SETTING"},
        "--convergence": {"action": "store_true", "help": "compare the steps, seconds and FLOPs "
                          "needed to reach the baseline's best loss (always for text runs)"},
        "--baseline": {"default": "none", "metavar": "FILTER", "help": "filter of the baseline, "
                       "with options as in depthwise,filter.kernel_size=32 (default: none)"},
        "--step-costs": {"type": Path, "metavar": "FILE", "help": "JSON from `python -m "
                         "spaudio.bench step`; seconds are computed from its seconds per step, "
                         "because those of the runs depend on the load of the machine"},
        "--output": {"type": Path, "help": "also write a Markdown file, with figures beside it"},
        "--csv": {"type": Path, "help": "also write settings, results and logs to a CSV file"},
        "--force": _FORCE,
    }),
    "filters": (_filters, "draw a run's filters", {
        "run": {**_RUN, "help": "folder of a run; the figures are written into it"},
    }),
    "predict": (_predict, "classify audio files with a run's best model", {
        **_MODEL,
        "paths": _PATHS,
        "--top": {"type": int, "default": 3, "metavar": "K", "help": "classes per file "
                  "(default: 3)"},
        "--format": {"choices": ("table", "csv", "json"), "default": "table",
                     "help": "form of the output (default: table)"},
        "--output": {"type": Path, "help": "write to a file instead of the terminal"},
        "--window": {"type": float, "metavar": "S", "help": "seconds; longer files are cut into "
                     "windows of this length and probabilities are averaged (default: the longest "
                     "clip in the run's data)"},
        "--unsure": _UNSURE,
        "--align": {"choices": ("all", "folder"), "help": "align the embeddings of all files, or "
                    "of those in each folder, with those of the training clips; only for files of "
                    "one speaker, place or device that cover most classes"},
        "--skip-bad": _SKIP_BAD,
        "--force": _FORCE,
    }),
    "detect": (_detect, "find events in long recordings", {
        **_MODEL,
        "paths": _PATHS,
        "--window": {"type": float, "metavar": "S", "help": "seconds to classify at a time "
                     "(default: the median length of the training clips)"},
        "--hop": {"type": float, "metavar": "S", "help": "seconds from one window to the next "
                  "(default: half a window)"},
        "--table": {"type": Path, "metavar": "FILE|DIR", "help": "annotations of the recordings, "
                    "as for training; prints how many are found, false events per hour, precision "
                    "and recall"},
        "--threshold": {"type": float, "default": 0.5, "metavar": "P", "help": "lowest probability "
                        "at which a class counts as present (default: 0.5)"},
        "--format": {"choices": ("csv", "audacity", "raven"), "default": "csv", "help": "table, "
                     "label tracks or selection tables (default: csv)"},
        "--times": {"action": "store_true", "help": "add clock times, read from file names: "
                    "YYYYMMDD_HHMMSS, ISO, or AudioMoth's hexadecimal names"},
        "--output": {"type": Path, "help": "file; with --format audacity or raven also a folder, "
                     "for one file per recording (made for several recordings)"},
        "--skip-bad": _SKIP_BAD,
        "--force": _FORCE,
    }),
    "explain": (_explain, "show which seconds and bands decided the class", {
        **_MODEL,
        "file": {"type": Path, "metavar": "FILE", "help": "audio"},
        "--label": {"metavar": "CLASS", "help": "class to explain (default: the most probable)"},
        "--window": {"type": float, "metavar": "S", "help": "seconds; for a longer file, explains "
                     "the window with the highest probability"},
        "--output": {"type": Path, "help": "figure, PNG or SVG (default: <name>.explained.png in "
                     "the current folder, with --label <name>.<label>.explained.png)"},
        "--force": _FORCE,
    }),
    "listen": (_listen, "classify live sound from a microphone", {
        **_MODEL,
        "--device": {"metavar": "NAME", "help": "microphone: number or part of the name"},
        "--file": {"type": Path, "metavar": "FILE", "help": "play a file in real time instead"},
        "--window": {"type": float, "metavar": "S", "help": "seconds of sound per prediction "
                     "(default: the median length of the training clips)"},
        "--hop": {"type": float, "metavar": "S", "help": "seconds from one prediction to the next "
                  "(default: 0.25, or the window if that is less)"},
        "--unsure": _UNSURE,
    }),
    "export": (_export, "export a run's model with its front-end (ONNX or pt2)", {
        **_MODEL,
        "--format": {"choices": ("onnx", "pt2"), "required": True},
        "--output": {"type": Path, "help": "file (default: model.onnx or model.pt2 in the run)"},
        "--clips": {"nargs": "+", "type": Path, "default": [], "metavar": "FILE|DIR",
                    "help": "audio to check the export on, in addition to synthetic sounds"},
        "--force": _FORCE,
    }),
    "study": (_study, "execute the runs of a study; finished runs are skipped", {
        "file": {"type": Path, "metavar": "FILE", "help": "recipes/<name>/<study>.yaml, or the CSV "
                 "of a study over datasets, to print its results again"},
        "overrides": {"nargs": "*", "metavar": "[DATA:]KEY=VALUE", "help": "settings for every "
                      "run, or for the runs on one dataset"},
        "--only": {"metavar": "NAME,...", "help": "only these configurations"},
        "--data": {"metavar": "NAME,...", "help": "only these datasets"},
        "--seeds": {"metavar": "SEED,...", "help": "only these seeds"},
        "--jobs": {"type": int, "default": 1, "help": "number of parallel runs (default: 1)"},
        "--results": {"action": "store_true", "help": "run nothing; compare the finished runs"},
        "--csv": {"type": Path, "help": "also write the results, one row per run"},
        "--output": {"type": Path, "help": "write the comparison as Markdown, with figures beside "
                     "it; in a page with two lines `<!-- results -->`, replaces only the part "
                     "between them"},
        "--force": _FORCE,
    }),
    "generate": (_generate, "generate text with a run of a text recipe", {
        "run": _RUN,
        "--prompt": {"default": " ", "help": "beginning of the text: a to z and spaces"},
        "--length": {"type": int, "default": 500, "help": "characters (default: 500)"},
        "--temperature": {"type": float, "default": 1.0, "help": "divides the logits; 0 takes the "
                          "most probable character (default: 1)"},
        "--top-k": {"type": int, "metavar": "K", "help": "sample only from the K most probable "
                    "characters"},
        "--seed": {"type": int, "default": 0, "help": "seed for sampling (default: 0)"},
    }),
}  # fmt: skip


if __name__ == "__main__":
    main()
