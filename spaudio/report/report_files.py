"""Shared parts of the reports of all kinds of runs: files, and lines of Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spaudio.errors import counted
from spaudio.io.atomic import write_atomic
from spaudio.io.escape import for_markdown
from spaudio.io.plain import write_json
from spaudio.report.figures.report_figures import Figures
from spaudio.report.run_files import MARKDOWN, REPORT

#: Explains what an accuracy with aligned groups is.
ALIGNED = (
    "with groups aligned: the embeddings of each group of the test split (such as a speaker) are "
    "shifted and scaled to the mean and spread of the training clips, as `spaudio predict --align` "
    "does"
)


def write_files(
    run: Path, report: dict[str, Any], markdown: list[str], figures: Figures, *names: str
) -> None:
    """Writes ``report.md``, then ``report.json``, which marks the run as finished.

    Args:
        run: The run's folder.
        report: Content of ``report.json``.
        markdown: Lines of ``report.md``.
        figures: The run's figures.
        names: Names of figures. Existing ones are linked at the end.
    """
    text = "\n".join([*markdown, "", *figures.links(*names), ""])
    write_atomic(run / MARKDOWN, text.encode())
    write_json(run / REPORT, report, indent=2)


def filter_choice(report: Mapping[str, Any]) -> str:
    """Returns the filter of a run as Markdown, such as ``bank`` (num_filters=36, kernel_size=4)."""
    options = {key: value for key, value in report["filter"].items() if value is not None}
    name = options.pop("name")
    written = ", ".join(f"{key}={for_markdown(value)}" for key, value in options.items())
    return f"`{name}` ({written})" if written else f"`{name}`"


def valid_held_out(report: Mapping[str, Any]) -> bool:
    """Whether a run measured its validation split before it trained on it, or never did.

    Older reports do not say; their runs measured it at the end.
    """
    return bool(report.get("valid_held_out", not report.get("trained_on_valid")))


def selection(report: Mapping[str, Any]) -> str:
    """Describes which weights are kept, and how they were selected."""
    if "penalty" in report:  # a probe, which has fits in place of epochs
        again = ", then refitted with its clips" if report["trained_on_valid"] else ""
        return (
            f"penalty {report['penalty']:g} (number {report['best_epoch']} of "
            f"{report['epochs']}), selected on the validation split{again}"
        )
    if report["trained_on_valid"]:
        return f"weights of the last epoch ({report['epochs']})"
    before = "" if report["best_epoch"] else ", the head as fitted before training"
    epoch = f"epoch {report['best_epoch']} of {report['epochs']}{before}"
    return f"{epoch}, selected on the validation split"


def left_out(count: int, skipped: int = 0) -> str:
    """Returns what pretraining did not use, to be added to a sentence; empty for nothing."""
    unusable = f", without {skipped} that are unusable" if skipped else ""
    if not count:
        return unusable
    return (
        f", without {count} that are in the validation or test split, or have the name of a "
        f"recording that one of its clips was cut from{unusable}"
    )


def pretraining(report: Mapping[str, Any]) -> list[str]:
    """Returns a line on pretraining without labels, if there was any."""
    if "pretrain" not in report:
        return []
    p = report["pretrain"]
    how = f"pretrained by masked prediction ({p['mask_ratio']:.0%} of a clip, spans of "
    how += f"{p['mask_tokens']} tokens)"
    if "runs" in p:  # of all folds
        return [
            f"{how} on {p['source']}, for each fold, without labels: {p['seconds']:.1f} s in all"
        ]
    return [
        f"{how} on {p['clips']:,} clips ({p['hours']:.2f} hours) of "
        f"{p['source']}{left_out(p['left_out'], p.get('skipped', 0))}, without labels: "
        f"{p['steps']:,} steps, {p['seconds']:.1f} s; squared error {p['loss']:.3f} on "
        f"{p['held_out']:,} held-out clips"
    ]


def cost_lines(report: Mapping[str, Any]) -> list[str]:
    """Returns a list of sizes and times, as far as the report has them, and the git commit."""
    parameters = f"parameters: {report['num_params']:,}, of which filters: "
    parameters += f"{report['filter_params']:,}"
    if "front_end_params" in report:
        parameters += f", learned front-end: {report['front_end_params']:,}"
    if report.get("stem_params"):
        parameters += f", stem: {report['stem_params']:,}"
    seconds = ", ".join(f"{part} {took:.1f}" for part, took in report["seconds"].items())
    lines = [parameters, f"seconds: {seconds}"]
    if not (fitted := report["step_seconds"] is None):
        step = f"one training step: {report['step_seconds'] * 1000:.0f} ms"
        if report.get("precision") == "bf16":
            step += " in bfloat16"
        if "step_flops" in report:
            step += f", {report['step_flops'] / 1e9:.2f} GFLOP by count"
            step += " (matrix products and filters)"
        if "data_wait" in report:
            if report.get("adapt") != "full":  # its batches hold the encoder's inputs
                step += f"; {report['tokens_per_second']:,.0f} tokens per second in training"
            step += f"; training waited for data for {report['data_wait']:.1%} of its time"
        lines.append(step)
    if "adapt" in report:
        until = ""
        if report["best_seconds"] is not None:  # of a run whose log was lost
            until = f"{report['best_seconds']:.1f} s to the "
            until += "selected fit; " if fitted else "best epoch; "
        lines.append(
            f"pretrained encoder {for_markdown(report['base']['source'])} (SHA-256 "
            f"{report['base']['sha256'][:12]}), adapt={report['adapt']}: "
            f"{report['trained_params']:,} trained parameters; {until}"
            f"{report['peak_memory_bytes'] / 2**20:,.0f} MiB at most"
        )
    lines += map(for_markdown, pretraining(report))
    if report.get("skipped"):
        skipped = counted(report["skipped"], "clip")
        lines.insert(0, f"**left out, as missing or unusable: {skipped}**")
    if report.get("token_seconds"):
        lines.append(f"one token is {report['token_seconds'] * 1000:.0f} ms")
    lines += report["filters"]
    if found := {name: both for name, both in report.get("modulation", {}).items() if both}:
        both = "; ".join(f"{name} {one:.2f}, {two:.2f}" for name, (one, two) in found.items())
        lines.append(
            "correlation of the kernels' mean response with the modulation spectrum of the "
            f"training clips, before and after training: {both}"
        )
    return [f"- {line}" for line in [*lines, f"git commit: {report['git_commit']}"]]
