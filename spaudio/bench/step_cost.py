"""Training steps of a recipe with each filter, timed in turn on the recipe's batches."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from torch import nn
from torch.profiler import record_function

from spaudio.bench.harness import machine, ratio, take_turns
from spaudio.errors import ConfigError
from spaudio.experiment.compose import compose
from spaudio.experiment.processes import make_accelerator
from spaudio.experiment.settings import PretrainedConfig, Settings, TextSettings
from spaudio.experiment.tasks import open_task
from spaudio.filters.fused import cpu
from spaudio.model.classifier import count_parameters
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.report.convergence import split_options
from spaudio.training.ema import WeightAverage
from spaudio.training.objective import Objective
from spaudio.training.optim import make_optimizer

UPDATE = "optimizer, clipping, averaging"  # profiler range around what follows backward
BATCHES = 8  # per round; clips of a batch have similar lengths, so several are needed
# Products of a filter's kernels with all windows: the response, the response again in the backward
# pass, and the gradients of tokens and kernels.
_PRODUCTS = 4
_PEAK = "peak"  # stands for no filter
COLUMNS = {
    "filter": "{filter}",
    "parameters": "{parameters:,}",
    "ms per step": "{ms:.1f}",
    "relative": "{times_the_first:.2f}",
    "added, relative to multiply-adds at peak": "{times_its_multiply_adds:.2f}",
}


def measure(
    recipe: Path, overrides: Sequence[str], filters: Sequence[str], rounds: int, limit: float
) -> dict[str, Any]:
    """Times forward and backward pass, optimizer step and weight averaging, but not loading.

    Args:
        recipe: Folder with a ``config.yaml``. Its dataset is prepared if necessary.
        overrides: Settings for every filter, as for the recipe's ``run.py``.
        filters: Names of filters, with their own settings after commas
            (``bank,filter.num_filters=8``): those of ``filter``, of ``optim`` and, unless the
            encoder is pretrained, of ``model``. The others are compared with the first one.
        rounds: Measurements of each. Medians are reported.
        limit: Seconds after which no further round starts.

    Returns:
        ``title``, ``machine``, ``recipe``, ``shape``, and ``rows``, one per filter.
        ``times_its_multiply_adds`` is the time that a filter adds to a step of the first one,
        divided by what its multiply-adds (four times those of :meth:`TokenFilter.flops`) take at
        the float32 peak, which is measured in turn with the steps. It is None if the filter has no
        more of them than the first one, or the native library is missing.

    Raises:
        ConfigError: If the folder is not a recipe, a setting is wrong, or a filter has a setting
            that may change the batches.
        DataError: If the dataset is missing.
    """
    if given := [one for one in overrides if one.partition("=")[0] == "filter"]:
        raise ConfigError(f"{given[0]}: name the filters to compare with --filter, once for each")
    common = on_cpu(overrides)
    # A filter's own settings come last: of two values of a setting, the last one counts.
    composed = {
        name: compose(recipe, [*common, *split_options(f"filter={name}")]) for name in filters
    }
    first = composed[filters[0]]
    # All are timed on the first one's batches, which also depend on a pretrained encoder.
    pretrained = isinstance(first.model, PretrainedConfig)
    own = ("filter.", "optim.") if pretrained else ("filter.", "model.", "optim.")
    for name in filters:
        for option in split_options(name)[1:]:
            if not option.startswith(own):
                raise ConfigError(
                    f"--filter {name}: {option} may change the batches, which all filters share; "
                    "give it after the recipe, for all of them (--filter takes "
                    f"{', '.join(f'{part}*' for part in own)})"
                )
    task = open_task(first, recipe)
    batches = list(islice(task.train, BATCHES))
    functions: dict[str, Callable[[], None]] = {}
    parameters: dict[str, int] = {}
    flops: dict[str, float] = {}
    sizes = batch_sizes(first, batches)
    for name, settings in composed.items():
        task.settings = settings
        model = task.build_model()
        parameters[name] = count_parameters(model)
        dim = _layers_and_dim(settings, model)[1]
        found = model.token_filters().values()
        flops[name] = fmean(n * sum(f.flops(tokens, dim) for f in found) for n, tokens in sizes)
        functions[name] = make_steps(settings, model, task.objective, batches)
    title, shape = describe_shape(first, model, batches)
    peaks: list[float] = []
    if (library := cpu.library()) is not None:
        functions[_PEAK] = lambda: peaks.append(library.peak(0.05))
    seconds = take_turns(functions, rounds, limit)
    seconds.pop(_PEAK, None)
    base, rows = seconds[filters[0]], []
    for name, took in seconds.items():
        added = median(a - b for a, b in zip(took, base, strict=True)) / len(batches)
        work = _PRODUCTS * (flops[name] - flops[filters[0]])
        rows.append(
            {
                "filter": name,
                "parameters": parameters[name],
                "rounds": len(took),
                "seconds": median(took) / len(batches),
                "times_the_first": ratio(took, base),
                "times_its_multiply_adds": (
                    added * median(peaks) / work if peaks and work > 0 else None
                ),
            }
        )
    return {
        "title": title,
        "machine": machine(),
        "recipe": first.recipe,
        "shape": shape,
        "peak_gflops": median(peaks) / 1e9 if peaks else None,
        "rows": rows,
    }


def make_steps(
    settings: Settings,
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Any],
) -> Callable[[], None]:
    """Returns a function that trains the model one step on each batch.

    Raises:
        ConfigError: If gradients are to be accumulated, which would take other batches.
    """
    trainer = settings.trainer
    if trainer.accumulate != 1:
        raise ConfigError(
            f"trainer.accumulate={trainer.accumulate}: the benchmark computes whole batches; leave "
            "it out"
        )
    accelerator = make_accelerator(trainer)
    optimizer = make_optimizer(model, settings.optim)
    average = WeightAverage(model, trainer.ema) if trainer.ema else None
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    rng = np.random.default_rng(settings.seed)

    def run() -> None:
        for step, batch in enumerate(batches):
            accelerator.backward(objective.loss(model, batch, rng))
            with record_function(UPDATE):
                accelerator.clip_grad_norm_(model.parameters(), trainer.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average is not None:
                    average.update(accelerator.unwrap_model(model), step)

    return run


def describe_shape(
    settings: Settings, model: nn.Module, batches: Sequence[Any]
) -> tuple[str, dict[str, Any]]:
    """Returns the shapes of model and batches, as the beginning of a title and as numbers.

    The title also says how many of the tokens are padding.
    """
    layers, dim = _layers_and_dim(settings, model)
    sizes = batch_sizes(settings, batches)
    batch, tokens = (fmean(numbers) for numbers in zip(*sizes, strict=True))
    padding = 0.0  # of windows of text, which have one length
    if not isinstance(settings, TextSettings):
        computed = sum(batch.padding_mask.numel() for batch in batches)
        padding = 1 - sum(int(batch.num_tokens) for batch in batches) / computed
    title = (
        f"{settings.recipe}: {layers} layers of width {dim}, batches of {batch:.0f} "
        f"sequences of {tokens:.0f} tokens, {padding:.1%} of them padding; "
    )
    shape = {"batch": batch, "tokens": tokens, "dim": dim, "layers": layers}
    return title, {**shape, "padding": padding}


def batch_sizes(settings: Settings, batches: Sequence[Any]) -> list[tuple[int, int]]:
    """Returns the number of sequences of each batch and their length, with padding."""
    if isinstance(settings, TextSettings):
        return [(settings.trainer.batch_size, settings.context)] * len(batches)
    return [tuple(batch.tokens.shape[:2]) for batch in batches]


def on_cpu(overrides: Sequence[str]) -> list[str]:
    """Returns the settings of a benchmark, which runs on the CPU.

    Raises:
        ConfigError: If they name another device.
    """
    device = "trainer.device=cpu"
    if given := [one for one in overrides if one.startswith("trainer.device=") and one != device]:
        raise ConfigError(f"{given[0]}: the benchmark runs on the CPU; leave it out")
    return [*overrides, device]


def _layers_and_dim(settings: Settings, model: nn.Module) -> tuple[int, int]:
    if isinstance(model, AdaptedClassifier):  # its encoder has its own shape
        return len(model.base.layers), model.base.dim
    return settings.model.layers, settings.model.dim
