"""A training step of a recipe by kind of operation, from torch's profiler."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from spaudio.bench.harness import machine
from spaudio.bench.step_cost import BATCHES, UPDATE, describe_shape, make_steps, on_cpu
from spaudio.experiment.compose import compose
from spaudio.experiment.tasks import open_task

FILTER = "filter"  # also the name of the range around a filter's forward pass
BACKWARD = "autograd::engine::evaluate_function: "
LOADING, OTHER = "loading", "Python and dispatch"
# The first pattern that matches an operation's name decides. Names are those of torch 2.
KINDS = {
    "attention": re.compile(r"aten::(_scaled_dot|_flash|bmm|baddbmm|_softmax)"),
    "matrix products": re.compile(r"aten::(addmm|mm\b|addmv|mv\b|dot\b)|.*_linear"),
    "convolutions": re.compile(r"aten::(.*convolution|_slow_conv|thnn_conv|.*pool[12]d)"),
    "dropout": re.compile(r"aten::(bernoulli|native_dropout|_fused_dropout|random_)"),
    "norms": re.compile(r"aten::(.*layer_norm|.*batch_norm)"),
    "activations": re.compile(r"aten::(gelu|relu|silu|threshold|sigmoid)"),
    OTHER: re.compile(r"(?!aten::|detach$)|aten::(empty|as_strided|view|expand|t\b|transpose)"),
    "element-wise, sums and copies": re.compile(""),
}
COLUMNS = {
    "kind": "{kind}",
    "mostly": "{mostly}",
    "ms per step": "{ms:.2f}",
    "share": "{share:.1%}",
    "operations per step": "{operations:.0f}",
}


def measure(recipe: Path, overrides: Sequence[str], rounds: int, limit: float) -> dict[str, Any]:
    """Profiles forward pass, backward pass, clipping, optimizer, averaging, and loading.

    Batches are loaded in this process, as by one worker. With ``trainer.workers=1``, the default,
    loading overlaps with the steps if a core is free.

    Args:
        recipe: Folder with a ``config.yaml``. Its dataset is prepared if necessary.
        overrides: Settings, as for the recipe's ``run.py``.
        rounds: Measurements. Medians are reported.
        limit: Seconds after which no further round starts.

    Returns:
        ``title``, ``machine``, ``recipe``, and ``rows``, one per kind of operation.

    Raises:
        ConfigError: If the folder is not a recipe, or a setting is wrong.
        DataError: If the dataset is missing.
    """
    settings = compose(recipe, [*on_cpu(overrides), "trainer.workers=0"])
    task = open_task(settings, recipe)
    loader, batches, loading = iter(task.train), [], []
    for _ in range(min(BATCHES, len(task.train))):
        start = time.perf_counter()
        batches.append(next(loader))
        loading.append(time.perf_counter() - start)
    model = task.build_model()
    for each in model.token_filters().values():
        each.forward = record_function(FILTER)(each.forward)
    steps = make_steps(settings, model, task.objective, batches)
    steps()
    alone: list[float] = []
    found: list[dict[str, Counter[str]]] = []
    counts: list[Counter[str]] = []
    begun = time.perf_counter()
    while len(alone) < rounds and (len(alone) < 3 or time.perf_counter() - begun < limit):
        start = time.perf_counter()
        steps()
        alone.append((time.perf_counter() - start) / len(batches))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            start = time.perf_counter()
            steps()
            whole = round(1e9 * (time.perf_counter() - start))
        spent, number = by_kind(profiler.events() or [])
        spent[OTHER]["outside of operations"] = whole - sum(map(Counter.total, spent.values()))
        found.append(spent)
        counts.append(number)
    seconds = {
        kind: 1e-9 * median(spent[kind].total() for spent in found) / len(batches)
        for kind in [*KINDS, FILTER, UPDATE]
    }
    seconds[LOADING] = median(loading)
    total = sum(seconds.values())
    rows = []
    for kind, took in sorted(seconds.items(), key=lambda pair: -pair[1]):
        most = sum((spent.get(kind, Counter()) for spent in found), Counter[str]()).most_common(2)
        if not took:
            continue
        rows.append(
            {
                "kind": kind,
                "mostly": ", ".join(name.removeprefix("aten::") for name, _ in most),
                "rounds": len(found),
                "seconds": took,
                "share": took / total,
                "operations": median(n[kind] for n in counts) / len(batches),
            }
        )
    title, shape = describe_shape(settings, model, batches)
    return {
        "title": f"{title}a step takes {1e3 * median(alone):.1f} ms without the profiler; ",
        "machine": machine(),
        "recipe": settings.recipe,
        "shape": shape,
        "rows": rows,
    }


def by_kind(
    events: Iterable[FunctionEvent],
) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Sums the self time of operations, excluding the operations that they call.

    An operation of the backward pass belongs to a filter if the operation that it differentiates
    does. The two share a sequence number.

    Returns:
        For each kind the nanoseconds of each operation by name, and the number of its operations.
    """
    inside: dict[int, str | None] = {}  # range by the id of an event
    by_number: dict[int, str | None] = {}  # range of the operation with a sequence number
    spent: dict[str, Counter[str]] = defaultdict(Counter)
    number: Counter[str] = Counter()
    for event in sorted(events, key=lambda event: event.time_range.start):
        scope = event.name if event.name in (FILTER, UPDATE) else None
        if scope is None and event.cpu_parent is not None:
            scope = inside[event.cpu_parent.id]
        if event.name.startswith(BACKWARD):
            scope = by_number.get(event.sequence_nr)
        elif event.sequence_nr >= 0:
            by_number[event.sequence_nr] = scope  # the last one creates the graph node
        inside[event.id] = scope
        kind = scope or next(kind for kind, name in KINDS.items() if name.match(event.name))
        spent[kind][event.name] += round(1e3 * event.self_cpu_time_total)
        number[kind] += 1
    return spent, number
