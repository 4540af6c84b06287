"""Classes of different sizes: weights, draws, and that classes of equal size change nothing."""

import json
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import recall_score
from sklearn.utils.class_weight import compute_class_weight

from spaudio.errors import ConfigError
from spaudio.experiment.tasks import open_task
from spaudio.experiment.tasks.classification import ClassificationTask
from spaudio.tokens.bucket_sampler import BucketSampler
from spaudio.training.balance import RATIO, Balance, choose_balance
from spaudio.training.loader import make_loader
from spaudio.training.log import read_log
from spaudio.training.mixing import Mixing
from spaudio.training.objective import Classification, Predictions
from spaudio.training.trainer_config import TrainerConfig
from tests import RECIPES
from tests.conftest import RunRecipe
from tests.fixtures import toy
from tests.fixtures.tiny_audio import make_class_folders
from tests.fixtures.tiny_run import compose
from tests.training.test_objective import MeanModel, batch

CLASSES = [0] * 90 + [1] * 10 + [2] * 3


def test_weights_are_scikit_learns_and_used_above_a_ratio() -> None:
    found = choose_balance("loss", CLASSES)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=CLASSES)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6)
    assert found.weights[CLASSES].mean().item() == pytest.approx(1)
    assert choose_balance("auto", CLASSES).method == "sampler"
    assert choose_balance("auto", CLASSES, long_clips=True).method == "loss"
    assert "30.0 times" in choose_balance("auto", CLASSES).text
    fitted = choose_balance("auto", CLASSES, fitted=True)  # of which no batches are drawn
    assert fitted.text.endswith("times as much training data as the smallest: the fit of the head "
                                "weighs each class equally")  # fmt: skip
    at_most = [0] * round(RATIO) + [1]
    assert choose_balance("auto", at_most) == Balance(ratio=RATIO)
    assert choose_balance("none", CLASSES).method == "none"
    assert "trainer.balance=none" in choose_balance("none", CLASSES).text
    for setting in ("loss", "sampler", "auto"):  # equal classes: nothing changes
        assert choose_balance(setting, [0, 1, 1, 0]) == Balance()
    lacking = choose_balance("loss", [0, 2, 2])  # a class without clips has no say
    assert lacking.ratio == 2
    assert lacking.weights[[0, 2]].tolist() == [1.5, 0.75]


def test_what_cannot_be_balanced_is_refused() -> None:
    assert choose_balance("auto", [], multi_label=True) == Balance()
    with pytest.raises(ConfigError, match=r"balance=loss needs one label.*balance=none"):
        choose_balance("loss", [], multi_label=True)
    with pytest.raises(ConfigError, match=r"trainer\.balance must be one of .*'auto'.*; got 'yes'"):
        TrainerConfig(balance="yes")
    config = TrainerConfig(batch_size=8, max_tokens=90, workers=0)
    with pytest.raises(ConfigError, match=r"12 tokens of 4 times trainer\.batch_size=8.*=loss"):
        make_loader(toy.dataset(toy.TRAINING), config, shuffle=True, seed=0, balanced=True)


@pytest.mark.parametrize("mixing", [Mixing(), Mixing(mixup=1.0), Mixing(cutmix=1.0)])
def test_each_label_of_a_mixed_clip_has_its_weight(mixing: Mixing) -> None:
    one, weights = batch([0, 1, 2, 3, 4, 5]), torch.tensor([0.5, 3.0, 1.0])
    objective = Classification(0.0, mixing, Balance("loss", 6.0, weights))
    loss = objective.loss(MeanModel(), one, np.random.default_rng(1))
    mixed = mixing(one, np.random.default_rng(1))
    tokens, padding = (one if mixed is None else mixed)[:2]
    scores = MeanModel()(tokens, padding).log_softmax(dim=1)
    expected = 0.0
    for i, label in enumerate(one.labels.tolist()):
        share, other = (1.0, label) if mixed is None else (
            mixed.share[i].item(), int(one.labels[mixed.other[i]]))  # fmt: skip
        expected -= share * float(weights[label] * scores[i, label])
        expected -= (1 - share) * float(weights[other] * scores[i, other])
    assert loss.item() == pytest.approx(expected / 6, rel=1e-5)
    # The parts of a batch add up to it, whatever their labels.
    if mixed is None:
        parts = [[0, 3], [1], [2, 4, 5]]
        rng = np.random.default_rng(0)
        total = sum(len(p) * objective.loss(MeanModel(), batch(p), rng).item() for p in parts)
        assert total / 6 == pytest.approx(loss.item(), rel=1e-5)


def test_a_balanced_sampler_draws_each_class_equally_often() -> None:
    lengths = np.random.default_rng(0).integers(5, 50, size=len(CLASSES)).tolist()
    sampler = BucketSampler(lengths, 8, shuffle=True, seed=1, classes=CLASSES)
    every = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert batches == list(sampler)  # as a resumed run has them
        assert len(batches) == len(sampler) == -(-len(CLASSES) // 8)
        items = list(chain(*batches))
        counts = Counter(CLASSES[i] for _, i in items)
        assert set(counts.values()) <= {34, 35}
        # Within a class no clip is drawn more than once more often than another.
        small = Counter(i for _, i in items if CLASSES[i])
        assert {small[i] for i in range(90, 100)} <= {3, 4}
        assert not every & set(items)  # each time another variation
        every |= set(items)
    assert len(every) == 12 * len(CLASSES)
    assert {i for _, i in every} == set(range(len(CLASSES)))


def test_balanced_accuracy_is_the_mean_recall_and_selects() -> None:
    alone = Predictions(torch.eye(2)[[0] * 4], torch.tensor([0, 0, 0, 1]), 1.0)
    assert alone.balanced_accuracy == 0.5  # a class with one clip counts as any other
    labels = torch.tensor([0] * 8 + [2] * 2)
    guess = Predictions(torch.eye(3)[[0] * 10], labels, 1.0)
    other = Predictions(torch.eye(3)[[0] * 4 + [1] * 4 + [2] * 2], labels, 1.0)
    for found in (guess, other):
        expected = recall_score(
            labels, found.probabilities.argmax(dim=1), labels=[0, 2], average="macro"
        )
        assert found.metrics["balanced_accuracy"] == pytest.approx(expected)
    assert guess.rank > other.rank
    one, cpu = batch([*range(6)], torch.tensor([0, 0, 0, 0, 0, 2])), Accelerator(cpu=True)
    for method in ("sampler", "loss"):
        balanced = Classification(balance=Balance(method, 9.0)).measure(MeanModel(), [one], cpu)
        assert balanced.rank[0] == balanced.balanced_accuracy != balanced.accuracy


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of one class, ten of each other one."""
    sounds = make_class_folders(tmp_path_factory.mktemp("audio") / "sounds", groups=10, clips=1)
    for file in sorted((sounds / "hum").rglob("*.*"))[3:]:
        file.unlink()
    return sounds


def test_the_choice_reaches_batches_and_loss(tmp_path: Path, sounds: Path) -> None:
    def opened(*settings: str) -> ClassificationTask:
        given = (f"source={sounds}", f"data={tmp_path}", "preset=debug", "test_fraction=0.3")
        task = open_task(compose("folder", *given, *settings), RECIPES / "folder")
        assert isinstance(task, ClassificationTask)
        return task

    def drawn(task: ClassificationTask) -> set[int]:
        classes = task.data.train.classes()
        batches = task.train.batch_sampler
        return set(Counter(classes[i] for items in batches for _, i in items).values())

    task = opened()
    assert max(drawn(task)) - min(drawn(task)) <= 1
    assert task.objective.balance.loss_weights is None
    # A batch of the longest clips would have more than 60 tokens.
    for settings in (["trainer.balance=loss"], ["trainer.max_tokens=60", "augment.crop=0"]):
        task = opened(*settings)
        assert max(drawn(task)) > 4 * min(drawn(task))
        assert len(task.objective.balance.loss_weights) == 3
        assert "selected by balanced accuracy" in task.balance.text
    task = opened("trainer.balance=loss", "validation.train=true")  # which keeps the last epoch
    assert task.balance.text.endswith("(trainer.balance=loss)")


def test_a_run_on_classes_of_different_sizes(
    tmp_path: Path, sounds: Path, run_recipe: RunRecipe, blank_figures: None
) -> None:
    for balance in ("auto", "loss"):
        done = run_recipe(
            "folder", "preset=debug", "trainer.epochs=1", f"trainer.balance={balance}",
            f"source={sounds}", f"run_id={balance}", "test_fraction=0.3",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "times as much training data as the smallest" in done.err
        run = tmp_path / "runs" / "folder" / balance
        report = json.loads((run / "report.json").read_text())
        assert report["balance"]["ratio"] > RATIO
        assert report["balance"]["method"] == {"auto": "sampler"}.get(balance, balance)
        assert f"trainer.balance={report['balance']['method']}" in (run / "report.md").read_text()
        assert report["test"]["balanced_accuracy"] > 0
        assert "valid_balanced_accuracy" in read_log(run)[0]
