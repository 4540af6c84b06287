"""Results of a study over datasets, one per run, and the CSV file that holds them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_type_hints

from spaudio.errors import DataError
from spaudio.io.csv_files import for_csv, from_csv, read_rows, write_rows


@dataclass(frozen=True)
class Result:
    """What a study records about a run.

    Args:
        data: Title of the dataset.
        recipe: Its recipe.
        setting: Name of the setting.
        fold: The fold that was tested on; empty if the study names none.
        seed: The run's seed.
        accuracy: Accuracy on the test split.
        valid: Accuracy on the validation split; NaN if the run was trained on it too.
        floor: Accuracy of the classical floor on the test split.
        clips: Clips of the test split.
        token_rate: Tokens per second of audio.
        parameters: Parameters of the model.
        filter_parameters: Parameters of its filters.
        trained_parameters: Trained parameters, including the head; fewer than ``parameters`` if a
            pretrained encoder was frozen or adapted.
        steps: Optimizer steps, without those of pretraining; 0 for a probe, whose head is fitted.
        step_seconds: Seconds per step, which depend on the load of the machine; NaN without steps.
        train_seconds: Seconds of training, including pretraining without labels and the fit of the
            head of a pretrained encoder.
        modulation_before: Correlation of the kernels' mean response with the modulation spectrum of
            the training clips before training, mean over layers; NaN without filters.
        modulation_after: The same after training.
        baseline: The setting that it is compared with; empty for that setting itself.
        control: A setting of similar cost that it is also compared with; empty if there is none.
        overrides: The given overrides, without paths.
        git_commit: Commit of the code that trained it.
        instruction_set: That of the processor, such as ``"AVX2"``; empty if it was not recorded.
            Times are compared between equal ones only.
    """

    data: str
    recipe: str
    setting: str
    fold: str
    seed: int
    accuracy: float
    valid: float
    floor: float
    clips: int
    token_rate: float
    parameters: int
    filter_parameters: int
    trained_parameters: int
    steps: int
    step_seconds: float
    train_seconds: float
    modulation_before: float
    modulation_after: float
    baseline: str
    control: str
    overrides: str
    git_commit: str
    instruction_set: str = ""


def write_results(results: Sequence[Result], path: Path) -> None:
    """Writes a CSV file with one row per run.

    Args:
        results: Results of the runs.
        path: File to write.
    """
    rows = [
        {key: for_csv(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in map(asdict, results)
    ]
    write_rows(path, [field.name for field in fields(Result)], rows)


def read_results(path: Path) -> list[Result]:
    """Reads what :func:`write_results` wrote.

    Raises:
        DataError: If the file cannot be read or is of another kind.
    """
    kinds = get_type_hints(Result)
    rows: list[dict[str, str]] = []
    try:
        rows = read_rows(path)
        found = [
            # Files from before the last column lack it.
            Result(
                **{name: kind(from_csv(row[name])) for name, kind in kinds.items() if name in row}
            )
            for row in rows
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        if rows and "report.metric" in rows[0]:
            raise DataError(
                f"{path} holds the runs of one recipe; compare them with `spaudio compare {path}`"
            ) from error
        raise DataError(
            f"{path} is not a file that `spaudio study --csv` writes ({error})"
        ) from error
    if not found:
        raise DataError(f"{path} holds no run")
    return found


def values_of(results: Sequence[Result], field: str) -> list[str]:
    """Returns the distinct values of a field, such as ``"data"``, in the order of the results."""
    return list(dict.fromkeys(getattr(one, field) for one in results))


def on_one_processor(results: Sequence[Result]) -> list[Result]:
    """Returns the results whose times can be compared: those on the most common processor."""
    counts = Counter(one.instruction_set for one in results)
    most = max(counts, key=counts.__getitem__)
    return [one for one in results if one.instruction_set == most]
