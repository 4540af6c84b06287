"""Our side: training of ``recipes/fsdd``, or the waveform front-end alone."""

import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch

from spaudio.bench.peers.clips import RECIPE
from spaudio.bench.peers.encoder_shape import FILTERS, HOP, RATE, STRIDE, TAPS, train_encoder
from spaudio.bench.peers.turns import Turns
from spaudio.bench.step_cost import make_steps
from spaudio.experiment.compose import compose, quoted
from spaudio.experiment.processes import make_accelerator
from spaudio.experiment.tasks import open_task
from spaudio.io.command_line import errors_in_one_line
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.waveform_filterbank import WaveformFilterbank

# Like the other sides: no stem, no filter, no dropout, float32, loading in the same process, all
# clips of the official training split.
SETTINGS = (
    "preset=frames", "filter=none", "model.dropout=0", "trainer.workers=0", "validation.train=true",
    "trainer.device=cpu",
)  # fmt: skip


def train_recipe(turns: Turns, overrides: Sequence[str]) -> None:
    """Trains on epochs of the recipe's loader, with its augmentation and the given overrides."""
    with TemporaryDirectory() as data:
        places = [f"source={quoted(RECIPE / 'recordings')}", f"data={quoted(data)}"]
        settings = compose(RECIPE, [*SETTINGS, *places, *overrides])
        begun = process_time()
        task = open_task(settings, RECIPE)
        turns.prepared = process_time() - begun  # the others compute features within their turns
        batches: list[object] = []
        model, accelerator = task.build_model(), make_accelerator(settings.trainer)
        run = make_steps(settings, model, task.objective, batches)

        def evaluate() -> float:
            model.eval()
            measured: Any = task.objective.measure(model, task.final["test"], accelerator)
            model.train()
            return float(measured.accuracy)

        turns.evaluate = evaluate
        sampler: Any = task.train.batch_sampler
        going, epoch = turns.step(), 0
        while going:
            sampler.set_epoch(epoch)
            for batch in task.train:
                batches[:] = [batch]
                run()
                going = turns.step(len(batch.labels))
                if not going:
                    return
            epoch += 1


def train_front_end(turns: Turns) -> None:
    """Trains the waveform front-end at the shapes of :mod:`spaudio.bench.peers.encoder_shape`."""
    config = TokenConfig(
        sample_rate=RATE, front_end="waveform", stack=1, hop=HOP / RATE,
        waveform=WaveformConfig(num_filters=FILTERS, kernel=TAPS / RATE, stride=STRIDE),
    )  # fmt: skip
    module = WaveformFilterbank(config)
    train_encoder(module, lambda waves: module.log_frames(waves.view(len(waves), -1, HOP)), turns)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with errors_in_one_line():
        if sys.argv[1] == "asteroid":
            train_front_end(Turns(4))
        else:
            train_recipe(Turns(10), sys.argv[2:])
