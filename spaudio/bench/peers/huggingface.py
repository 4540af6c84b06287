"""Hugging Face's audio classification example: Audio Spectrogram Transformer and Trainer.

As in ``run_audio_classification.py``, a clip is decoded and its features are computed whenever it
is drawn. The transformer has the size of ours: 4 layers of width 128, 29 tokens per second.
"""

import sys
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from spaudio.bench.peers.clips import CLASSES, RATE, list_clips, read_clip
from spaudio.bench.peers.turns import Turns

BATCH, FRAMES, BANDS = 32, 98, 40


class InTurns(TrainerCallback):  # type: ignore[misc]
    """Waits for the turn of this side."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Waits before the first step."""
        self.turns.step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Waits after each turn."""
        control.should_training_stop = not self.turns.step(BATCH)


def train(turns: Turns, seed: int, folder: str) -> None:
    """Trains until there is no further turn; the library makes a folder for its output."""
    torch.manual_seed(seed)
    extractor = ASTFeatureExtractor(sampling_rate=RATE, num_mel_bins=BANDS, max_length=FRAMES)
    config = ASTConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
        max_length=FRAMES, num_mel_bins=BANDS, num_labels=CLASSES,
    )  # fmt: skip

    def collate(clips: list[Any]) -> dict[str, torch.Tensor]:
        waveforms = [read_clip(path) for path, _ in clips]
        features = extractor(waveforms, sampling_rate=RATE, return_tensors="pt")
        return {**features, "labels": torch.tensor([label for _, label in clips])}

    model, held_out = ASTForAudioClassification(config), list_clips(test=True)

    def evaluate() -> float:
        model.eval()
        right = 0
        for start in range(0, len(held_out), BATCH):
            batch = collate(held_out[start : start + BATCH])
            with torch.no_grad():
                found = model(input_values=batch["input_values"]).logits.argmax(dim=1)
            right += int((found == batch["labels"]).sum())
        model.train()
        return right / len(held_out)

    turns.evaluate = evaluate
    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=BATCH, max_steps=100_000, learning_rate=1e-3,
        lr_scheduler_type="constant", use_cpu=True,
        remove_unused_columns=False, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_strategy="no", dataloader_drop_last=True, seed=seed,
    )  # fmt: skip
    Trainer(
        model,
        arguments,
        train_dataset=list_clips(),
        data_collator=collate,
        callbacks=[InTurns(turns)],
    ).train()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        train(Turns(10), int(sys.argv[1]), folder)
