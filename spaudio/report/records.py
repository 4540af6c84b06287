"""Records of finished runs: settings, results and log, read from run folders or from one CSV."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from spaudio.errors import DataError
from spaudio.io.csv_files import FORMULA, read_rows, write_rows
from spaudio.io.plain import flatten, read_json, read_yaml
from spaudio.report.run_files import CONFIG, REPORT, no_run
from spaudio.training.log import read_log

#: Settings of how and where a run is launched.
LAUNCHING = frozenset(
    {"run_id", "resume", "runs", "jobs", "cluster", "cluster_options", "overrides"}
)
#: Settings that describe a run, or choose what is written about it.
DESCRIBING = frozenset({"about", "page", "replaced"})
#: Settings of the machine that a run is on, which change no result.
MACHINE = frozenset({"data", "trainer.workers", "trainer.device"})
#: Settings in which runs of one group may differ.
NOT_COMPARED = LAUNCHING | DESCRIBING | MACHINE | {"seed"}
# Facts of `report.json` that a comparison uses.
FACTS = (
    "recipe",
    "seed",
    "metric",
    "samples_sha256",
    "labels_sha256",
    "splits_sha256",
    "base.sha256",
    "pretrain.sha256",
    "clips.train",
    "clips.valid",
    "clips.test",
    "num_params",
    "filter_params",
    "step_flops",
    "step_seconds",
    "seconds.train",
    "pretrain.seconds",
    "best_epoch",
    "test.accuracy",
    "test.macro_f1",
    "test.balanced_accuracy",
    "test.mAP",
    "test.auc",
    "test.loss",
    "floor.svm",
    "trained_params",
    "best_seconds",
    "peak_memory_bytes",
    "git_commit",
)
#: Those that tell runs on different clips or labels apart.
OF_DATA = ("samples_sha256", "labels_sha256")
#: The fact that tells pretrained encoders apart, whatever their folder.
OF_BASE = "base.sha256"
#: The fact that tells the audio of ``pretrain.source`` apart, whatever its folder.
OF_PRETRAINING = "pretrain.sha256"
#: Those that are equal in all runs of one setting.
OF_SETTING = (*OF_DATA, "splits_sha256", OF_BASE, OF_PRETRAINING)
_TEXTS = ("recipe", "metric", *OF_SETTING, "git_commit")  # the other facts are numbers
_NUMBERS = ("num_params", "filter_params", "seconds.train")
# Facts that a comparison needs from each kind of run, by metric.
_RESULTS = {
    "accuracy": ("test.accuracy", "test.macro_f1", "floor.svm"),
    "mAP": ("test.mAP", "floor.svm"),
    "loss": (),
}
LOG = ("epoch", "step", "train_loss", "valid_loss", "seconds", "cpu_seconds")


@dataclass
class Record:
    """A finished run.

    Args:
        name: Name of the run's folder.
        settings: The run's settings by dotted name, such as ``filter.name``.
        facts: Results and sizes by dotted name, such as ``test.accuracy``; see :data:`FACTS`.
        log: The training log, one entry per validation.
        folder: The run's folder; None if the record is from a CSV file.
        overrides: The overrides of the run, as ``key=value``.
    """

    name: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    log: list[dict[str, Any]]
    folder: Path | None = None
    overrides: list[str] = field(default_factory=list)


def read_records(sources: Iterable[Path], only: Sequence[str] = ("*",)) -> list[Record]:
    """Reads run folders and CSV files.

    Args:
        sources: Folders of finished runs, and files written by :func:`write_records`.
        only: Patterns such as ``study-bank-?``; a run is read if its name matches one.

    Raises:
        DataError: If a folder is not a finished run, a file cannot be read, or nothing is left.
    """

    def wanted(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in only)

    records: list[Record] = []
    for source in sources:
        if source.suffix == ".csv":
            records += [record for record in _read_csv(source) if wanted(record.name)]
        elif wanted(source.resolve().name):
            records.append(_read_folder(source))
    if not records:
        if sources and list(only) != ["*"]:
            raise DataError(
                f"no run's name matches {','.join(only)}; a pattern must match the whole name"
            )
        raise DataError("there is no run to compare; name run folders: spaudio compare RUN...")
    return records


def write_records(records: Sequence[Record], path: Path) -> None:
    """Writes runs into one CSV file, one row per run and epoch.

    Settings are in columns ``settings.<name>``, results in ``report.<name>``, and overrides in
    ``overrides``; all are repeated in every row of a run. Values other than text are written as
    JSON.

    Args:
        records: The runs.
        path: CSV file to write.

    Raises:
        DataError: If a run has no log, or two have the same name.
    """
    rows = []
    names = names_of(records)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two runs are called {repeated[0]}; rename the folder of one")
    for name, record in zip(names, records, strict=True):
        if not record.log:
            raise DataError(
                f"{name} has no log.jsonl: it is damaged, or a run over folds, which has one per "
                "fold; name the folders of the folds"
            )
        settings = {f"settings.{key}": value for key, value in record.settings.items()}
        facts = {f"report.{key}": value for key, value in record.facts.items()}
        for entry in record.log:
            logged = {key: entry.get(key) for key in LOG}
            given = {"overrides": record.overrides} if record.overrides else {}
            rows.append({"run": name, **logged, **facts, **settings, **given})
    columns = dict.fromkeys(key for row in rows for key in row)
    cells = [{key: _to_cell(value) for key, value in row.items()} for row in rows]
    write_rows(path, columns, cells)


def names_of(records: Sequence[Record]) -> list[str]:
    """Returns the names of runs. Equal names, such as those of folds, include the parent folder."""
    counts = Counter(record.name for record in records)
    return [
        f"{record.folder.resolve().parent.name}/{record.name}"
        if counts[record.name] > 1 and record.folder is not None
        else record.name
        for record in records
    ]


def _read_folder(folder: Path) -> Record:
    try:
        report, config = read_json(folder / REPORT), read_yaml(folder / CONFIG)
        settings = {key: value for key, value in config.items() if key not in NOT_COMPARED}
        settings = {name: value for name, value in flatten(settings) if value is not None}
        found = {name: value for name, value in flatten(report) if value is not None}
        facts = {name: found[name] for name in FACTS if name in found}
        overrides = [str(one) for one in config.get("overrides") or ()]
        record = Record(folder.resolve().name, settings, facts, read_log(folder), folder, overrides)
        _check(record)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not (folder / CONFIG).is_file():
            raise DataError(no_run(folder, several=True)) from error
        raise DataError(
            f"{folder} is not a finished run ({Path(error.filename).name} is missing); finish it "
            f"with resume={folder}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}); correct its permissions"
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{folder}: {REPORT}, {CONFIG} or log.jsonl is damaged ({error}); run it again"
        ) from error
    return record


def _check(record: Record) -> None:
    """Checks what comparisons rely on.

    Raises:
        ValueError: If a result is missing or has the wrong type.
    """
    facts, metric = record.facts, record.facts.get("metric")
    if metric not in _RESULTS:
        raise ValueError(f"metric is {metric!r}; expected one of {', '.join(_RESULTS)}")
    for name in ("recipe", "metric", "seed", *_NUMBERS, *_RESULTS[metric]):
        if name not in facts:
            raise ValueError(f"{name} is missing")
    for name, value in facts.items():
        kind = str if name in _TEXTS else int | float
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}")
        if name in _RESULTS[metric] and not math.isfinite(float(value)):
            raise ValueError(f"{name} is {value!r}")
    if not isinstance(facts["seed"], int):
        raise ValueError(f"seed is {facts['seed']!r}")
    if not isinstance(record.settings.get("filter.name"), str):
        raise ValueError("filter.name is missing")
    given = record.overrides
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError(f"overrides is {given!r}; expected a list of texts")
    for entry in record.log:
        for name in ("step", "valid_loss", "seconds", "cpu_seconds"):
            value = entry.get(name, 1 if "seconds" in name else None)
            if not isinstance(value, int | float) or (name == "step" and not value >= 0):
                raise ValueError(f"a record of the log has {name}={value!r}")


def _read_csv(path: Path) -> list[Record]:
    records: dict[str, Record] = {}
    try:
        for row in read_rows(path):
            values = {key: _from_cell(cell) for key, cell in row.items() if cell != ""}
            settings, facts = (
                {k.removeprefix(p): value for k, value in values.items() if k.startswith(p)}
                for p in ("settings.", "report.")
            )
            name = str(values["run"])
            given = values.get("overrides", [])
            record = records.setdefault(name, Record(name, settings, facts, [], overrides=given))
            if (record.settings, record.facts) != (settings, facts):
                raise ValueError(f"rows of the run {name} differ in settings or results")
            record.log.append({key: values[key] for key in LOG if key in values})
        for record in records.values():
            _check(record)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a file that `spaudio compare RUN... --csv FILE` writes ({error})"
        ) from error
    return list(records.values())


def _to_cell(value: Any) -> str:
    """Writes a value so that :func:`_from_cell` reads the same one."""
    if value is None:
        return ""
    # JSON's quotation mark also keeps a spreadsheet from reading text as a formula.
    is_plain = isinstance(value, str) and not value.startswith(FORMULA) and value != ""
    is_plain = is_plain and _from_cell(value) == value
    return value if is_plain else json.dumps(value)


def _from_cell(cell: str) -> Any:
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell
