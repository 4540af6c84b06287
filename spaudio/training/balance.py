"""Class imbalance: when and how training compensates for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spaudio.errors import ConfigError

BALANCES = ("auto", "none", "sampler", "loss")
RATIO = 4.0  # largest to smallest class; "auto" balances above this


@dataclass(frozen=True)
class Balance:
    """How the classes of a training split are balanced.

    Args:
        method: ``"none"``, ``"sampler"``, ``"loss"`` or, of a head that is only fitted, ``"fit"``.
        ratio: Items of the largest class divided by those of the smallest; 1 if unknown.
        weights: (classes,), number of items divided by number of classes and by the items of each
            class, as scikit-learn's ``"balanced"``. Their mean over all items is 1. None without
            balancing.
        selects: Whether the validation split selects the epoch that is kept.
    """

    method: str = "none"
    ratio: float = 1.0
    weights: Tensor | None = None
    selects: bool = True

    @property
    def loss_weights(self) -> Tensor | None:
        """Class weights of the loss; None if all clips count equally."""
        return self.weights if self.method == "loss" else None

    @property
    def text(self) -> str:
        """One sentence on how classes are balanced; empty for classes of similar size.

        A ratio of at most ``RATIO`` is not mentioned unless balancing was requested.
        """
        if self.method == "none" and self.ratio <= RATIO:
            return ""
        how = {
            "none": "classes are not balanced (trainer.balance=none)",
            "sampler": "each class is drawn equally often (trainer.balance=sampler)",
            "loss": "the loss weighs each class equally (trainer.balance=loss)",
            "fit": "the fit of the head weighs each class equally",
        }[self.method]
        ranked = self.selects and self.method in ("sampler", "loss")
        chosen = "; the model is selected by balanced accuracy" if ranked else ""
        return (
            f"the largest class has {self.ratio:.1f} times as much training data as the smallest: "
            f"{how}{chosen}"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Method, ratio and text, for ``report.json``."""
        return {"method": self.method, "ratio": self.ratio, "text": self.text}


def choose_balance(
    setting: str,
    classes: Sequence[int],
    *,
    multi_label: bool = False,
    long_clips: bool = False,
    fitted: bool = False,
    selects: bool = True,
) -> Balance:
    """Decides how the classes of a training split are balanced.

    Args:
        setting: ``trainer.balance``. For a ratio above ``RATIO``, ``"auto"`` is ``"sampler"``,
            which learns better from few clips (Buda et al. 2018, arXiv 1710.05381), or ``"loss"``
            if there are long clips; else it is ``"none"``.
        classes: Class of each item of the training split; empty for a multi-label set.
        multi_label: A clip may have several classes.
        long_clips: Whether clips are so long that ``trainer.max_tokens`` bounds their batches,
            which excludes the sampler.
        fitted: Whether the model is fitted to all clips at once, so that no batches are drawn.
        selects: Whether the validation split selects the epoch that is kept.

    Raises:
        ConfigError: If a multi-label set is to be balanced.
    """
    if multi_label:
        if setting not in ("auto", "none"):
            raise ConfigError(
                f"trainer.balance={setting} needs one label per clip; this dataset has several. "
                "Give trainer.balance=none"
            )
        return Balance()
    counts = np.bincount(classes)
    present = counts[counts > 0]
    ratio = float(present.max() / present.min())
    method = setting
    if setting == "auto":
        method = "none" if ratio <= RATIO else "loss" if long_clips else "sampler"
    if method == "none" or ratio == 1:
        return Balance(ratio=ratio)
    weights = len(classes) / (len(present) * np.maximum(counts, 1))
    method = "fit" if fitted else method
    return Balance(method, ratio, torch.from_numpy(weights).float(), selects)
