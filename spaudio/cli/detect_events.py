"""The command ``detect``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaudio.cli.model_commands import (
    check_seconds,
    combine,
    open_models,
    tell_bad,
    tell_no_rest,
    write,
)
from spaudio.cli.subcommand import FORCE, MODEL, PATHS, SKIP_BAD, WITH, Subcommand
from spaudio.errors import ConfigError, counted
from spaudio.io.escape import printable
from spaudio.io.output import check_name, check_output

if TYPE_CHECKING:
    from spaudio.inference.annotated import Annotations
    from spaudio.inference.events import Recording

_SCORED_AT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # thresholds of `detect --table`


def _detect(chosen: argparse.Namespace) -> None:
    """Prints or writes the events in recordings; unusable files fail the command."""
    check_seconds(chosen)
    if not 0 < chosen.threshold <= 1:
        raise ConfigError(
            f"--threshold {chosen.threshold:g}; expected a probability above 0 and at most 1"
        )
    from spaudio.audio.find import find_files

    files, bad_folders = find_files(chosen.paths)
    if not files:
        tell_bad(bad_folders, skip=chosen.skip_bad, some=False)
        return
    output, form = chosen.output, chosen.format
    if output is not None:
        check_name(output, f"--output {output}", "give a shorter one")
    targets = _event_files(output, form, files)
    inputs = [chosen.run, *chosen.others, *([] if targets else chosen.paths)]
    inputs += [chosen.table] * (chosen.table is not None)
    written = [*targets.values()] or [output] * (output is not None)
    new_folder = output if targets and output is not None and not output.exists() else None
    for target in targets.values():
        check_name(target, f"--output {output}", "rename the recording, or use --format csv")
    for target in [new_folder] if new_folder else written:
        check_output(target, "--output", inputs=inputs, force=chosen.force)
    from spaudio.inference.annotated import read_annotations
    from spaudio.inference.detect import detect
    from spaudio.inference.events import as_audacity, as_csv, as_raven

    models = open_models(chosen, chosen.window)
    predictor = models[0]
    annotations = None
    if chosen.table is not None:
        annotations = read_annotations(
            chosen.table,
            chosen.paths,
            files,
            predictor.inputs.classes,
            multi_label=predictor.inputs.multi_label,
        )
    finder = combine(models) if chosen.others else predictor
    tell_no_rest(predictor.inputs, "raise --threshold")
    recordings, bad = detect(
        finder,
        files,
        hop=chosen.hop,
        threshold=chosen.threshold,
        other_thresholds=() if annotations is None else _SCORED_AT,
        timed=chosen.times,
    )
    if not recordings:
        tell_bad(bad_folders + bad, skip=chosen.skip_bad, some=False)
        return
    if form == "csv":
        write(output, as_csv(recordings))
    else:
        if new_folder:
            new_folder.mkdir()
        top = predictor.front_end.config.top
        for one in recordings:
            text = as_audacity(one) if form == "audacity" else as_raven(one, top)
            write(targets.get(one.path, output), text)
    for one in recordings:
        sys.stderr.write(
            f"{printable(one.path)}: {counted(len(one.events), 'event')} in {one.seconds:.1f} s "
            f"(window {predictor.event_seconds:.3g} s){', all silent' if one.silent else ''}\n"
        )
    if annotations is not None:
        _tell_scores(annotations, recordings, chosen.threshold)
    tell_bad(bad_folders + bad, skip=chosen.skip_bad, some=bool(recordings))


def _tell_scores(
    annotations: "Annotations", recordings: Sequence["Recording"], threshold: float
) -> None:
    """Prints to standard error how well the events fit the annotations."""
    from spaudio.inference.event_scores import score_events, score_rows, score_thresholds
    from spaudio.report.tables import show_rows

    scored = [one for one in recordings if one.path in annotations.events]
    hours = sum(one.seconds for one in scored) / 3600
    facts = f"recordings: {len(scored)}, hours: {hours:.2f}, threshold: {threshold:g}"
    sys.stderr.writelines(f"{printable(note)}\n" for note in annotations.notes)
    if not scored:  # `tell_bad` gives each file's reason
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


DETECT: Subcommand = (_detect, "find events in long recordings", {
    **MODEL,
    "paths": PATHS,
    "--with": WITH,
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
    "--skip-bad": SKIP_BAD,
    "--force": FORCE,
})  # fmt: skip
