"""The commands that use a trained model; ``detect`` is in a file of its own."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from spaudio.cli.model_commands import (
    check_seconds,
    combine,
    open_models,
    tell_bad,
    tell_no_rest,
    write,
)
from spaudio.cli.subcommand import FORCE, MODEL, PATHS, RUN, SKIP_BAD, UNSURE, WITH, Subcommand
from spaudio.errors import ConfigError
from spaudio.io.escape import printable
from spaudio.io.output import check_output


def _predict(chosen: argparse.Namespace) -> None:
    """Prints or writes predictions; unusable files are reported last and fail the command."""
    if chosen.top < 1:
        raise ConfigError(f"--top {chosen.top}; expected at least 1")
    _check_unsure(chosen.unsure)
    check_seconds(chosen)
    if chosen.output is not None:
        inputs = [chosen.run, *chosen.others, *chosen.paths]
        check_output(chosen.output, "--output", inputs=inputs, force=chosen.force)
    from spaudio.audio.find import find_files
    from spaudio.inference.ensemble import decide_together, predict_by_each
    from spaudio.inference.predict_files import predict_files
    from spaudio.inference.predictions import render

    models = open_models(chosen, chosen.window)
    predictor = models[0]
    _refuse_class_unsure(chosen.unsure, predictor.inputs.classes)
    files, bad_folders = find_files(chosen.paths)
    if chosen.others:
        both = combine(models)
        answers, bad = predict_by_each(both.models, files, chosen.align)
        predictions = decide_together(both.models, both.weights, answers)
    else:
        predictions, bad = predict_files(predictor, files, chosen.align)
    bad = bad_folders + bad
    if not predictions and chosen.format != "json":  # which lists the unusable files
        tell_bad(bad, skip=chosen.skip_bad, some=False)
        return
    text = render(
        chosen.format,
        predictions,
        top=chosen.top,
        window_seconds=predictor.window_seconds,
        unsure=chosen.unsure,
        bad=bad,
    )
    write(chosen.output, text)
    tell_bad(bad, skip=chosen.skip_bad, some=bool(predictions))


def _evaluate(chosen: argparse.Namespace) -> None:
    """Prints the scores of models on labelled clips; unusable clips fail the command."""
    if chosen.output is not None:
        inputs = [*chosen.models, *([] if chosen.data is None else [chosen.data])]
        check_output(chosen.output, "--output", inputs=inputs, force=chosen.force)
    from spaudio.inference.evaluate import evaluate
    from spaudio.report.probabilities import write_probabilities
    from spaudio.report.tables import show_rows

    found, bad = evaluate(chosen.models, chosen.data, base=chosen.base)
    if found is None or (bad and not chosen.skip_bad):
        tell_bad(bad, skip=chosen.skip_bad, some=False)
        return
    if chosen.output is not None:  # before the tables, whose reader may leave, as `head` does
        write_probabilities(chosen.output, {"test": found.probabilities})
    sys.stderr.writelines(f"{printable(note)}\n" for note in found.notes)
    show_rows(found.rows, "Test split" if chosen.data is None else str(chosen.data))
    if chosen.per_class:
        show_rows(found.per_class(), "By class" + (", together" if len(chosen.models) > 1 else ""))
    tell_bad(bad, skip=chosen.skip_bad, some=True)


def _explain(chosen: argparse.Namespace) -> None:
    """Prints and draws the seconds and bands that decided the class."""
    check_seconds(chosen)
    option, output = "--output", chosen.output
    if output is None:
        # A label may hold characters that a file name cannot.
        label = "" if chosen.label is None else "." + re.sub(r"[^\w-]+", "_", chosen.label)
        option, output = "the default --output", Path(f"{chosen.file.stem}{label}.explained.png")
    if output.suffix.lower() not in (".png", ".svg"):
        raise ConfigError(f"--output {output}: the name of a figure must end in .png or .svg")
    check_output(output, option, inputs=[chosen.run, chosen.file], force=chosen.force)
    from spaudio.inference.explain import explain_sound

    [predictor] = open_models(chosen, chosen.window)
    found = explain_sound(predictor, predictor.read(chosen.file), chosen.label)
    end = found.start + len(found.waveform) / found.sample_rate
    lines = [f"{found.label} {found.confidence:.4f}, from {found.start:.2f} to {end:.2f} s"]
    for unit, digits, parts in (("s", 2, found.intervals), ("Hz", 0, found.bands)):
        for low, high, drop in parts:
            part = f"{low:,.{digits}f} - {high:,.{digits}f} {unit}"
            lines.append(f"  without {part:>20} the log-odds fall by {drop:.2f}")
    if len(lines) == 1:
        lines.append("  no single part supports this class")
    found.draw(output, chosen.file.name)
    sys.stdout.writelines(f"{printable(line)}\n" for line in [*lines, output])


def _listen(chosen: argparse.Namespace) -> None:
    """Prints predictions as they arrive, until Ctrl-C or the end of the file."""
    _check_unsure(chosen.unsure)
    check_seconds(chosen)
    if None not in (chosen.file, chosen.device):
        raise ConfigError(f"--device {chosen.device} has no effect with --file; leave one out")
    from spaudio.inference.listen import listen, open_microphone, play_file
    from spaudio.inference.live import Heard, open_stream

    [predictor] = open_models(chosen)
    _refuse_class_unsure(chosen.unsure, predictor.inputs.classes)
    tell_no_rest(predictor.inputs, "give a high --unsure")

    def print_remark(text: str) -> None:
        sys.stderr.write(f"{printable(text)}\n")

    def print_prediction(heard: Heard) -> None:
        label = heard.label if chosen.unsure is None else heard.decision(chosen.unsure)
        sys.stdout.write(f"{heard.end:8.2f} s  {heard.confidence:.2f}  {printable(label)}\n")
        sys.stdout.flush()

    stream = open_stream(predictor, chosen.window, chosen.hop)
    rate = predictor.sample_rate
    if chosen.file is not None:
        source = play_file(chosen.file, rate)
        predictor.warn_of_rate(chosen.file)
    else:
        source = open_microphone(chosen.device, rate, print_remark)
        predictor.warn_of_rate(source.name, source.sample_rate)
    listen(stream, source, print_prediction, print_remark)


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


def _check_unsure(unsure: float | None) -> None:
    """Refuses ``--unsure`` if it is not a probability."""
    if unsure is not None and not 0 <= unsure <= 1:
        raise ConfigError(f"--unsure {unsure}; expected a probability from 0 to 1")


def _refuse_class_unsure(unsure: float | None, classes: Sequence[str]) -> None:
    """Refuses ``--unsure`` if a class is named ``unsure``."""
    from spaudio.inference import predictions

    if unsure is not None and predictions.UNSURE in classes:
        raise ConfigError(
            f"--unsure: the run has a class named {predictions.UNSURE!r}; leave the option out"
        )


PREDICT: Subcommand = (_predict, "classify audio files with a run's best model", {
    **MODEL,
    "paths": PATHS,
    "--with": WITH,
    "--top": {"type": int, "default": 3, "metavar": "K", "help": "classes per file "
              "(default: 3)"},
    "--format": {"choices": ("table", "csv", "json"), "default": "table",
                 "help": "form of the output (default: table)"},
    "--output": {"type": Path, "help": "write to a file instead of the terminal"},
    "--window": {"type": float, "metavar": "S", "help": "seconds; longer files are cut into "
                 "windows of this length and probabilities are averaged, weighted by power "
                 "(default: the longest clip in the run's data)"},
    "--unsure": UNSURE,
    "--align": {"choices": ("all", "folder"), "help": "align the embeddings of all files, or "
                "of those in each folder, with those of the training clips; only for files of "
                "one speaker, place or device that cover most classes"},
    "--skip-bad": SKIP_BAD,
    "--force": FORCE,
})  # fmt: skip
EVALUATE: Subcommand = (_evaluate, "score models on labelled clips, alone and together", {
    "models": {"nargs": "+", "type": Path, "metavar": "MODEL", "help": "folder of a run; without "
               "--data also of a run over all folds, with it also of a saved model, or a Hugging "
               "Face Hub id, OWNER/NAME"},
    "--data": {"type": Path, "metavar": "DIR", "help": "clips in one sub-folder per class "
               "(default: the test split of the runs)"},
    "--base": {"metavar": "DIR|ID", "help": "pretrained encoder, if it has moved since "
               "training"},
    "--per-class": {"action": "store_true", "help": "also print the scores of each class"},
    "--output": {"type": Path, "metavar": "FILE", "help": "CSV file of the probabilities, of all "
                 "models together if there are several"},
    "--skip-bad": SKIP_BAD,
    "--force": FORCE,
})  # fmt: skip
EXPLAIN: Subcommand = (_explain, "show which seconds and bands decided the class", {
    **MODEL,
    "file": {"type": Path, "metavar": "FILE", "help": "audio file"},
    "--label": {"metavar": "CLASS", "help": "class to explain (default: the most probable)"},
    "--window": {"type": float, "metavar": "S", "help": "seconds; for a longer file, explains "
                 "the window that adds most to the class"},
    "--output": {"type": Path, "help": "figure, PNG or SVG (default: <name>.explained.png in "
                 "the current folder, with --label <name>.<label>.explained.png)"},
    "--force": FORCE,
})  # fmt: skip
LISTEN: Subcommand = (_listen, "classify live sound from a microphone", {
    **MODEL,
    "--device": {"metavar": "NAME", "help": "microphone: number or part of the name"},
    "--file": {"type": Path, "metavar": "FILE", "help": "play a file in real time instead"},
    "--window": {"type": float, "metavar": "S", "help": "seconds of sound per prediction "
                 "(default: the median length of the training clips)"},
    "--hop": {"type": float, "metavar": "S", "help": "seconds from one prediction to the next "
              "(default: 0.25, or half the window if that is less)"},
    "--unsure": UNSURE,
})  # fmt: skip
EXPORT: Subcommand = (_export, "export a run's model with its front-end (ONNX or pt2)", {
    **MODEL,
    "--format": {"choices": ("onnx", "pt2"), "required": True, "help": "format to export to"},
    "--output": {"type": Path, "help": "file (default: model.onnx or model.pt2 in the run)"},
    "--clips": {"nargs": "+", "type": Path, "default": [], "metavar": "FILE|DIR",
                "help": "audio to check the export on, in addition to synthetic sounds"},
    "--force": FORCE,
})  # fmt: skip
GENERATE: Subcommand = (_generate, "generate text with a run of a text recipe", {
    "run": RUN,
    "--prompt": {"default": " ", "help": "beginning of the text: a to z and spaces"},
    "--length": {"type": int, "default": 500, "help": "characters (default: 500)"},
    "--temperature": {"type": float, "default": 1.0, "help": "divides the logits; 0 takes the "
                      "most probable character (default: 1)"},
    "--top-k": {"type": int, "metavar": "K", "help": "sample only from the K most probable "
                "characters"},
    "--seed": {"type": int, "default": 0, "help": "seed for sampling (default: 0)"},
})  # fmt: skip
