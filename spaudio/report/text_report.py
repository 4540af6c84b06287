"""Report of a text run: JSON, Markdown, curves against steps and against seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spaudio.io.escape import for_markdown
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.results_plot import plot_losses
from spaudio.report.report_files import cost_lines, filter_choice, write_files
from spaudio.report.tables import markdown_table


def write_text_report(
    run: Path, facts: dict[str, Any], log: Sequence[dict[str, Any]], figures: Figures
) -> None:
    """Writes all files of a report; ``report.json`` last, since it marks the run as finished.

    Args:
        run: The run's folder.
        facts: Losses, sizes, seconds, seed and provenance, for ``report.json``.
        log: The training log.
        figures: The figures of filters, already drawn.
    """
    figures.draw("curves", lambda path: plot_losses(log, path))
    report = {"metric": "loss", **facts}
    corpus, context, stride = report["corpus"], report["context"], report["stride"]
    rows = []
    for name, title in (("valid", "validation"), ("test", "test")):
        found, whole = report[name], corpus["characters"][name]
        is_all = found["characters"] == whole - 1
        share = "all but the first" if is_all else f"of {whole:,}: the beginning of the split"
        rows.append({
            "Split": title,
            "Nats per character": f"{found['loss']:.4f}",
            "Bits per character": f"{found['bits']:.4f}",
            "Characters predicted": f"{found['characters']:,} ({share})",
        })  # fmt: skip
    stand_in = (
        "This is **not text8** but a stand-in: its losses can be compared only with those of other "
        "runs on the same text, and with no published result on text8."
    )
    lines = [
        f"# {for_markdown(report['recipe'])}: {for_markdown(run.name)}",
        "",
        f"Text: **{for_markdown(corpus['name'])}**, {sum(corpus['characters'].values()):,} "
        f"characters, SHA-256 `{corpus['sha256']}`.",
        "",
        *([stand_in, ""] if corpus["stand_in"] else []),
        f"Filter {filter_choice(report)}, {report['positions']} positions, seed "
        f"{report['seed']}. The model was selected on fixed windows of the validation split (epoch "
        f"{report['best_epoch']} of {report['epochs']}, {report['steps']:,} steps in all); the "
        "test split was used once, at the end.",
        "",
        markdown_table(rows),
        "",
        f"Measured by a sliding window of {context} characters with stride {stride}: after the "
        f"first window, each prediction is made from {context - stride + 1} to {context} "
        "characters.",
        "",
        *cost_lines(report),
    ]
    write_files(run, report, lines, figures, "curves", "filters", "trajectory")
