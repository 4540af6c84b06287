"""Settings that ``model=pretrained`` changes."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

_FULL_LR, _LR = 1e-4, 3e-3  # peak learning rates, of adapt=full and of the others


def pretrained_defaults(overrides: Sequence[Override], file: Mapping[str, Any]) -> list[str]:
    """Returns the settings that ``model=pretrained`` changes, unless they are given.

    ``adapt=full`` caches the encoder's input and augments it like other recipes. Clips that adapt
    the encoder are mixed. Few steps are needed. The loss has no label smoothing, as in the fit of
    the head; with smoothing, the optimum would differ.

    Args:
        overrides: Overrides of the command line.
        file: The recipe's ``config.yaml``, which may say how to adapt the encoder.
    """
    given: dict[str, Any] = {o.key_or_group: o.value() for o in overrides}
    if given.get("model") != "pretrained":
        return []
    model = file.get("model")
    in_file = model if isinstance(model, Mapping) else {}
    way = str(given.get("adapt", file.get("adapt")) or "probe")
    whole = way == "full" and given.get("model.adapt_layers", in_file.get("adapt_layers")) is None
    pooling = given.get("model.pooling", in_file.get("pooling", "mean_std"))
    changed = {"augment.noise": 0, "augment.crop": 0, "augment.mixstyle": 0,
               "augment.mixup_power": "false", "segments.seconds": "null",
               "trainer.min_steps": 0, "trainer.workers": 0,
               "trainer.ema": 0.98, "trainer.label_smoothing": 0,
               "optim.lr": _FULL_LR if way == "full" else _LR,
               # Both of these take the head's statistics; "mean" is for models from scratch.
               "model.pooling": "attention" if pooling == "attention" else "mean_std"}  # fmt: skip
    if not whole:
        changed["augment"] = "none"
    if way == "probe" and pooling == "mean_std":  # AudioSettings.fits_head_only
        changed["validation.train"] = "true"
    if way != "probe" and given.get("augment") is None:
        changed |= {"augment.mixup": 0.5, "augment.cutmix": 0.0 if whole else 0.3}
    if given.get("preset") is None:
        changed |= {"trainer.epochs": 16 if whole else 8, "trainer.batch_size": 16}
    return [f"{name}={value}" for name, value in changed.items() if name not in given]
