"""SpeechBrain's data pipelines and training loop (Brain), as in its ESC-50 recipe.

Clips are read and their features computed whenever they are drawn. The transformer has the size of
ours: 4 layers of width 128, tokens of two frames, 50 per second.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from spaudio.bench.peers.clips import CLASSES, RATE, list_clips, read_clip
from spaudio.bench.peers.turns import Turns

BATCH, BANDS, STACK, WIDTH = 32, 40, 2, 128


class Digits(sb.Brain):  # type: ignore[misc]
    """Features, normalisation, projection, transformer, mean and head."""

    def compute_forward(self, batch: Any, stage: Any) -> Tensor:
        """Returns logits (batch, classes)."""
        waveforms, shares = batch.signal
        frames = self.modules.normalise(self.modules.features(waveforms), shares)
        frames = frames[:, : frames.shape[1] // STACK * STACK].unflatten(1, (-1, STACK)).flatten(2)
        tokens = torch.arange(frames.shape[1])
        padding = tokens >= (shares * frames.shape[1]).ceil().unsqueeze(1)
        x = self.modules.project(frames)
        x, _ = self.modules.encoder(x, src_key_padding_mask=padding)
        x = x.masked_fill(padding.unsqueeze(-1), 0).sum(1) / (~padding).sum(1, keepdim=True)
        logits: Tensor = self.modules.head(x)
        return logits

    def compute_objectives(self, predictions: Tensor, batch: Any, stage: Any) -> Tensor:
        """Returns the mean cross-entropy."""
        return torch.nn.functional.cross_entropy(predictions, batch.label)


def train(turns: Turns, seed: int) -> None:
    """Trains until there is no further turn."""
    torch.manual_seed(seed)

    @sb.utils.data_pipeline.takes("path")  # type: ignore[untyped-decorator]
    @sb.utils.data_pipeline.provides("signal")  # type: ignore[untyped-decorator]
    def read(path: Any) -> Tensor:
        return torch.from_numpy(read_clip(path))

    def dataset(clips: Sequence[tuple[Path, int]]) -> DynamicItemDataset:
        items = {str(i): {"path": path, "label": label} for i, (path, label) in enumerate(clips)}
        keys = ["id", "signal", "label"]
        return DynamicItemDataset(items, dynamic_items=[read], output_keys=keys)

    modules = {
        "features": Fbank(sample_rate=RATE, n_mels=BANDS, n_fft=256),
        "normalise": InputNormalization(norm_type="sentence"),
        "project": nn.Linear(STACK * BANDS, WIDTH),
        "encoder": TransformerEncoder(
            num_layers=4, nhead=4, d_ffn=4 * WIDTH, d_model=WIDTH, dropout=0.0,
            normalize_before=True,
        ),
        "head": nn.Linear(WIDTH, CLASSES),
    }  # fmt: skip
    brain = Digits(modules, lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
    loader = brain.make_dataloader(
        dataset(list_clips()), sb.Stage.TRAIN, batch_size=BATCH, shuffle=True
    )
    held_out = dataset(list_clips(test=True))

    def evaluate() -> float:
        brain.modules.eval()
        right = 0
        for batch in brain.make_dataloader(held_out, sb.Stage.TEST, batch_size=BATCH):
            with torch.no_grad():
                found = brain.compute_forward(batch, sb.Stage.TEST).argmax(dim=1)
            right += int((found == batch.label).sum())
        brain.modules.train()
        return right / len(held_out)

    turns.evaluate = evaluate
    brain.on_fit_start()
    brain.modules.train()
    going = turns.step()
    while going:
        for batch in loader:
            brain.fit_batch(batch)
            going = turns.step(len(batch.label))
            if not going:
                return


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Turns(10), int(sys.argv[1]))
