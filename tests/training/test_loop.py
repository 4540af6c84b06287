"""The loop on a separable toy problem: it learns, keeps its best epoch, and resumes exactly."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from rich.progress import Progress

from spaudio.model.classifier import Classifier
from spaudio.training import loop
from spaudio.training.checkpoint import find_checkpoint, load_state, load_weights
from spaudio.training.ema import WeightAverage
from spaudio.training.loader import make_loader
from spaudio.training.log import TrainingLog, read_log
from spaudio.training.objective import Classification
from spaudio.training.optim import schedule
from spaudio.training.trainer_config import OptimConfig, TrainerConfig
from tests.fixtures.toy import TRAINING, dataset, last, make_model, train


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    result = train(tmp_path, 6, lr=1e-2)
    records = read_log(tmp_path)
    assert [r["epoch"] for r in records] == list(range(1, 7))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert records[-1]["valid_accuracy"] > 0.9
    best = max(records, key=lambda r: (r["valid_accuracy"], -r["valid_loss"]))
    assert result.best_epoch == best["epoch"]
    found = find_checkpoint(tmp_path / "checkpoints", "best")
    assert found.name == f"best-{result.best_epoch:04d}"
    assert result.tokens_per_second > 0
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 7, "tra')  # cut short by a crash
    assert read_log(tmp_path) == records


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name)
    TrainingLog(tmp_path).add({"epoch": 3, "lr": 0.5, "valid_loss": 0.25, "stage": "last"})
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "log")).Reload()
    assert set(found.Tags()["scalars"]) == {"epoch", "lr", "valid_loss"}
    assert [(one.step, one.value) for one in found.Scalars("valid_loss")] == [(3, 0.25)]


@pytest.mark.parametrize("damage", [b'{"epoch": 2, "tra', b"[]", b"\xff\xfe"])
def test_a_damaged_line_of_the_log_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"epoch": 1}\n' + damage + b'\n{"epoch": 3}\n{"epoch": 4}\n')
    with pytest.warns(UserWarning, match="line 2 is damaged"):
        TrainingLog(tmp_path, keep=3)
    assert file.read_text() == '{"epoch": 1}\n{"epoch": 3}\n'


def test_steps_are_counted_over_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed: list[Any] = []
    averaged: list[int] = []
    loss, update = Classification.loss, WeightAverage.update

    def mixing(self: Any, model: Any, batch: Any, rng: np.random.Generator) -> Any:
        mixed.append(rng.bit_generator.seed_seq.entropy)  # type: ignore[attr-defined]
        return loss(self, model, batch, rng)

    def averaging(self: Any, model: Any, step: int) -> None:
        averaged.append(step)
        update(self, model, step)

    monkeypatch.setattr(Classification, "loss", mixing)
    monkeypatch.setattr(WeightAverage, "update", averaging)
    monkeypatch.setattr(Classifier, "lr_scales", {"head": 0.5}, raising=False)
    train(tmp_path, 2, ema=0.9)
    steps = [*range(2 * read_log(tmp_path)[0]["step"])]
    assert mixed == [[3, step] for step in steps]
    assert averaged == steps
    groups = load_state(find_checkpoint(tmp_path / "checkpoints", "last"))["optimizer"]
    rate = read_log(tmp_path)[-1]["lr"]
    assert {group["lr"] for group in groups["param_groups"]} == {rate, rate / 2}


def test_what_the_log_says_of_steps(tmp_path: Path) -> None:
    """Rates of steps, losses of epochs, tokens without padding, and time per step."""
    result = train(tmp_path, 2, mixup=0.0, dropout=0.0, stem=False)
    records = read_log(tmp_path)
    steps = records[0]["step"]
    assert [r["step"] for r in records] == [steps, 2 * steps]
    config = OptimConfig(lr=3e-3)
    assert [r["lr"] for r in records] == [
        schedule(n * steps - 1, 2 * steps, config) for n in (1, 2)
    ]
    state = load_state(find_checkpoint(tmp_path / "checkpoints", "last"))["so_far"]
    assert state["tokens"] == 2 * sum(8 + number % 5 for number in TRAINING)
    assert result.step_seconds == pytest.approx(state["seconds"] / (2 * steps))
    assert result.tokens_per_second == pytest.approx(state["tokens"] / state["seconds"])


def test_the_training_loss_of_the_log_is_the_mean_over_the_steps_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    loss = Classification.loss

    def measuring(self: Any, *given: Any) -> Any:
        found = loss(self, *given)
        losses.append(found.item())
        return found

    monkeypatch.setattr(Classification, "loss", measuring)
    train(tmp_path, 2)
    means = np.array(losses).reshape(2, -1).mean(axis=1)
    assert [record["train_loss"] for record in read_log(tmp_path)] == pytest.approx(means)


def test_a_model_that_was_fitted_before_is_epoch_0_and_its_time_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = loop.TrainingLoop.fit
    monkeypatch.setattr(loop.TrainingLoop, "fit", lambda self: fit(self, loop.Fitted(0.5, 100.0)))
    result = train(tmp_path, 1, lr=1e-30)  # no epoch is better
    first, second = read_log(tmp_path)
    assert (first["epoch"], first["step"], first["lr"]) == (0, 0, 0)
    assert (first["train_loss"], first["seconds"]) == (0.5, 100)
    assert result.best_epoch == 0
    assert result.seconds == second["seconds"] > 100
    assert result.step_seconds is not None
    assert result.seconds == pytest.approx(100 + second["step"] * result.step_seconds)


def test_the_progress_bar_shows_the_latest_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    update = Progress.update

    def recording(self: Any, *arguments: Any, text: str, **others: Any) -> None:
        texts.append(text)
        update(self, *arguments, text=text, **others)

    monkeypatch.setattr(Progress, "update", recording)
    train(tmp_path, 2)
    accuracies = [f"valid {record['valid_accuracy']:.3f}" for record in read_log(tmp_path)]
    assert texts[0] == "epoch 1/2  "
    assert texts[-2:] == [f"epoch 2/2  {accuracy}" for accuracy in accuracies]


def test_without_selection_the_last_epoch_is_kept(tmp_path: Path) -> None:
    # At this rate all epochs are equally good, of which the first would be selected (next test).
    assert train(tmp_path, 3, lr=1e-30, select=False).best_epoch == 3
    assert find_checkpoint(tmp_path / "checkpoints", "best").name == "best-0003"


def test_of_equally_good_epochs_the_first_is_kept(tmp_path: Path) -> None:
    assert train(tmp_path, 2, lr=1e-30).best_epoch == 1  # the weights do not change


def test_the_averaged_weights_are_kept(tmp_path: Path) -> None:
    train(tmp_path, 1, ema=0.9, select=False)
    folder = tmp_path / "checkpoints"
    best, raw = load_weights(find_checkpoint(folder, "best")), last(tmp_path)
    assert any(not torch.equal(best[name], raw[name]) for name in raw)
    average = load_state(find_checkpoint(folder, "last"))["average"]
    torch.testing.assert_close(dict(average), best)
    # They are what is measured.
    model, cpu = make_model(), Accelerator(cpu=True)
    model.load_state_dict(best)
    loader = make_loader(dataset(range(33, 50)), TrainerConfig(workers=0), shuffle=False, seed=3)
    measured = Classification().measure(model, loader, cpu)
    assert read_log(tmp_path)[0]["valid_loss"] == pytest.approx(measured.loss, rel=1e-5)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    def change(name: str, **trainer: float) -> float:
        train(tmp_path / name, 1, **trainer)
        begin = load_weights(tmp_path / name / "checkpoints" / "last-0000")
        return max(float((w - begin[key]).abs().max()) for key, w in last(tmp_path / name).items())

    # AdamW does not depend on the scale of gradients, but for its epsilon of 1e-8.
    assert change("clipped", clip_norm=1e-9) < 0.3 * change("plain")


def test_waiting_for_data_is_counted(tmp_path: Path) -> None:
    quick = train(tmp_path / "quick", 1)
    slow = train(tmp_path / "slow", 1, before=lambda item: time.sleep(0.02))
    assert quick.data_wait < slow.data_wait < 1
    waited = slow.data_wait * slow.seconds
    state = load_state(find_checkpoint(tmp_path / "slow" / "checkpoints", "last"))
    assert state["so_far"]["waited"] == pytest.approx(waited)
    assert waited >= 0.02 * len(TRAINING)  # clips
    assert read_log(tmp_path / "slow")[-1]["wait_seconds"] == pytest.approx(waited)


@pytest.mark.parametrize("stop_after", [0, 1])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    def stop(item: tuple[int, int]) -> None:
        if item[0] == stop_after:
            raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole, 2, ema=0.9)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, 2, before=stop, ema=0.9)
    state = load_state(find_checkpoint(stopped / "checkpoints", "last"))
    assert state["so_far"]["epochs"] == stop_after
    torch.manual_seed(99)  # whatever the new process did before must not matter
    train(stopped, 2, resume=True, ema=0.9)
    torch.testing.assert_close(last(stopped), last(whole), atol=0, rtol=0)
    logs = [
        [[r[key] for key in ("epoch", "train_loss", "valid_loss")] for r in read_log(run)]
        for run in (whole, stopped)
    ]
    assert logs[0] == logs[1]


def test_a_worker_draws_nothing_that_a_resumed_run_would_draw_again(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole, 2, workers=1)
    shutil.copytree(whole, stopped)
    shutil.rmtree(find_checkpoint(stopped / "checkpoints", "last"))
    train(stopped, 2, resume=True, workers=1)
    torch.testing.assert_close(last(stopped), last(whole), atol=0, rtol=0)


def test_a_prolonged_run_is_measured_every_few_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "VALIDATIONS", 4)
    rates, step = [], torch.optim.AdamW.step

    def record(self: torch.optim.AdamW, *given: Any, **options: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *given, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    result = train(tmp_path, 1, min_steps=9, batch_size=64)  # one step per epoch
    assert result.epochs == 9
    assert rates == pytest.approx([schedule(i, 9, OptimConfig(lr=3e-3)) for i in range(9)])
    assert [record["epoch"] for record in read_log(tmp_path)] == [2, 4, 6, 8, 9]


@pytest.mark.parametrize(("least", "epochs"), [(2, 3), (5, 5), (20, 9)])
def test_a_small_dataset_is_not_trained_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, epochs: int
) -> None:
    monkeypatch.setattr(loop, "LEAST_STEPS", least)
    result = train(tmp_path, 1, min_steps=9, max_epochs=3, batch_size=64)  # one step per epoch
    assert result.epochs == epochs
