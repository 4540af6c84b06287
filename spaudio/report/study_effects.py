"""Effects of settings: paired differences of accuracy, with intervals, over several datasets.

Two settings are compared on runs with the same dataset, fold and seed. The effect is the mean over
datasets of the mean difference in each, so that every dataset counts equally. Its interval and
p-value are those of Student's t with the degrees of freedom of Welch and Satterthwaite, from the
variance of the folds or seeds within each dataset; while a dataset has a single pair, its variance
is unknown, and so is the interval. Folds share training clips, so their differences are not
independent: the variance of a mean over folds is that of independent ones, s² / n, plus s² / (K -
1) for K folds (Nadeau and Bengio, Machine Learning 52, 2003). Seeds of one split show the spread of
training alone, not of test clips. P-values are corrected with Holm's method for the number of
settings compared.

Of several datasets there is a second interval, of a bootstrap at two levels: datasets are drawn
with replacement, then folds or seeds within each. It covers new datasets like these, but ignores
the overlap of folds, and a bootstrap of few datasets or folds is too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from spaudio.errors import DataError
from spaudio.report.study_records import Result

CONFIDENCE = 0.95
DRAWS = 10_000
_EQUAL = 1e-6  # accuracies are kept in single precision

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """A setting compared with another one.

    Args:
        setting: Name of the setting.
        other: Name of the other setting.
        pairs: Runs of the setting and of the other with the same dataset, fold and seed.
        mean: Mean over datasets of the mean difference.
        low: Lower end of the 95 % interval; NaN if a dataset has a single pair, or if the
            differences within each dataset are equal.
        high: Upper end.
        p: Two-sided p-value.
        bootstrap: Ends of the 95 % interval of the bootstrap; NaN for a single dataset.
        corrected: The p-value, corrected with Holm's method for the settings that are compared.
    """

    setting: str
    other: str
    pairs: Sequence[tuple[Result, Result]]
    mean: float
    low: float
    high: float
    p: float
    bootstrap: tuple[float, float]
    corrected: float = 1.0

    @property
    def differences(self) -> dict[str, Array]:
        """Accuracy minus that of the other, one value per pair, by dataset."""
        found: dict[str, list[float]] = {}
        for one, other in self.pairs:
            found.setdefault(one.data, []).append(one.accuracy - other.accuracy)
        return {name: np.array(values) for name, values in found.items()}


def measure_effects(results: Sequence[Result], others: Mapping[str, str]) -> list[Effect]:
    """Compares settings with others.

    Args:
        results: Results of all runs.
        others: The setting that each setting is compared with.

    Returns:
        The effect of each setting that has runs in common with the other, in order.

    Raises:
        DataError: If two runs have the same dataset, setting, fold and seed.
    """
    runs: dict[str, dict[tuple[str, str, int], Result]] = {}
    folds: dict[str, set[str]] = {}
    for one in results:
        folds.setdefault(one.data, set()).add(one.fold)
        pair, own = (one.data, one.fold, one.seed), runs.setdefault(one.setting, {})
        if pair in own:
            raise DataError(
                f"two runs have setting {one.setting}, dataset {one.data}, fold {one.fold or '-'}, "
                f"seed {one.seed}; leave one out"
            )
        own[pair] = one
    counts = {data: len(names) for data, names in folds.items()}
    found = []
    for setting, other in others.items():
        here, there = runs.get(setting, {}), runs.get(other, {})
        pairs = [(one, there[pair]) for pair, one in here.items() if pair in there]
        if pairs:
            samples, overlaps = _samples(pairs, counts)
            mean, half, p = mean_difference(samples, overlaps)
            interval = _bootstrap(samples)
            found.append(Effect(setting, other, pairs, mean, mean - half, mean + half, p, interval))
    corrected = holm([effect.p for effect in found])
    return [replace(effect, corrected=p) for effect, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number by Holm's method (Scand. J. Statist. 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(factors * np.asarray(p_values)[order]).clip(max=1)
    return [float(p) for p in corrected]


def _samples(
    pairs: Sequence[tuple[Result, Result]], folds: Mapping[str, int]
) -> tuple[list[Array], list[float]]:
    """Returns the differences within each dataset, and what their overlap adds to 1/n.

    Args:
        pairs: Runs of the two settings.
        folds: The number of folds of each dataset, also of those without a pair; 1 for none. If
            fewer were run than the dataset has, the interval is wider than it needs to be.

    Returns:
        For each dataset one difference per fold, the mean over its seeds; of a single fold, one per
        seed. The second is 0 for seeds.
    """
    differences: dict[str, dict[str, list[float]]] = {}  # by dataset and fold, one per seed
    for one, other in pairs:
        by_fold = differences.setdefault(one.data, {})
        by_fold.setdefault(one.fold, []).append(one.accuracy - other.accuracy)
    samples, overlaps = [], []
    for data, by_fold in differences.items():
        if len(by_fold) > 1:
            samples.append(np.array([np.mean(seeds) for seeds in by_fold.values()]))
            overlaps.append(1 / (folds[data] - 1))
        else:
            samples.append(np.array(next(iter(by_fold.values()))))
            overlaps.append(0.0)
    return samples, overlaps


def mean_difference(
    samples: Sequence[Array], overlaps: Sequence[float]
) -> tuple[float, float, float]:
    """Returns the mean over datasets, half the width of its interval, and the p-value.

    Args:
        samples: For each dataset, the differences of its folds or seeds.
        overlaps: For each dataset, what is added to 1/n in the variance of a mean of n folds:
            1 / (K - 1) for K folds, 0 for seeds.

    Returns:
        NaN and 1 for the last two if a dataset has a single difference, or if no dataset has
        differences that vary.
    """
    mean = float(np.mean([sample.mean() for sample in samples]))
    if min(map(len, samples)) < 2:
        return mean, float("nan"), 1.0
    squares, freedoms = [], []  # squared errors of the means
    for sample, overlap in zip(samples, overlaps, strict=True):
        if np.ptp(sample) > _EQUAL:
            squares.append(sample.var(ddof=1) * (1 / len(sample) + overlap))
            freedoms.append(len(sample) - 1)
    if not squares:
        return mean, float("nan"), 1.0
    total = sum(squares)
    freedom = total**2 / sum(square**2 / own for square, own in zip(squares, freedoms, strict=True))
    error = float(np.sqrt(total)) / len(samples)
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return mean, half, 2 * float(t.sf(abs(mean) / error, freedom))


def _bootstrap(samples: Sequence[Array]) -> tuple[float, float]:
    """Returns the interval of the mean over datasets, which are drawn too; NaN for one dataset."""
    if len(samples) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(0)  # so that the same results print the same interval
    places = (DRAWS, len(samples))
    # One set of draws for each place, as a dataset that is drawn twice has its folds drawn anew.
    means = np.stack(
        [generator.choice(sample, (*places, len(sample))).mean(2) for sample in samples]
    )
    drawn = generator.integers(len(samples), size=places)
    mean = np.take_along_axis(means, drawn[None], axis=0)[0].mean(1)
    low, high = np.quantile(mean, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
