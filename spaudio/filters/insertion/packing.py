"""Finds packed sequences in the calls of transformers' models around a layer."""

import warnings
import weakref
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spaudio.filters.arguments import require
from spaudio.filters.insertion.calls import Call, calls_with_cache
from spaudio.filters.insertion.passes import SEVERAL, UNKNOWN, Passes, version_of
from spaudio.filters.tracing import (
    has_values,
    holds,
    in_backward,
    is_eager,
    is_exported,
    is_jit_traced,
    is_transformed,
)

# Pass, version of position_ids, batch size and boundaries (None if not packed), keyed by the
# positions, which all layers of a model share: counting sequences waits for the GPU.
_BOUNDARIES = WeakTensorKeyDictionary()


def find_packed(
    calls: Sequence[Call],
    batch: int,
    tokens: int,
    *,
    layer: str,
    padding_mask: Tensor | None,
    passes: Passes,
) -> Tensor | None:
    """Boundaries of packed sequences in the flattened tokens of a batch.

    Packed sequences are given as ``cu_seq_lens_q`` (or another name of `CU_SEQLENS`), or as
    ``position_ids`` that restart, unless the model generates with a key/value cache, or there is a
    padding mask: beside one, eager and SDPA attention of transformers do not read positions either.
    Compiled and traced code cannot count the sequences of ``position_ids``, and raises an error.
    So does ``torch.vmap``. An exported program does not separate them, which a warning says if the
    model is given ``position_ids``.

    Args:
        calls: The layer's own call and those around it, innermost first.
        batch: Batch size of the layer's output.
        tokens: Tokens per item.
        layer: Name of the layer, for the error.
        padding_mask: Padding of the tokens; None if there is none.
        passes: What was found in the layer's calls before, as ``packed``.

    Returns:
        Integers (sequences + 1,): the start of each sequence and the end of the last; None if each
        item is one sequence.

    Raises:
        ValueError: If the layer is recomputed, and which of its passes is not known, or if there
            are both packed sequences and padding. On a GPU the latter check is asynchronous; there
            and in compiled code it raises RuntimeError.
    """
    own = calls[0]
    # What a model with several inputs is given may belong to other tokens than the layer's.
    calls = list(takewhile(lambda call: not call.several, calls))
    given_boundaries = any(call.cu_seqlens is not None for call in calls)
    given_positions = any(call.positions is not None for call in calls)
    # Positions say nothing if boundaries counted in the first pass.
    said = given_boundaries or (given_positions and not passes.by_boundaries)
    if in_backward() and passes.packed and not said:
        known: Any = passes.recall(own.tokens, "packed")
        if known is not UNKNOWN and known is not SEVERAL:
            return known  # type: ignore[no-any-return]
        if padding_mask is not None and padding_mask.any():
            return None  # so the first pass was not packed
        raise ValueError(_unknown(layer, known is SEVERAL, passes.by_boundaries))
    found = _read(calls, batch, tokens, layer, padding_mask)
    if is_eager() and found is not None:
        passes.packed = True
        passes.by_boundaries |= given_boundaries
    return found


def _unknown(layer: str, several: bool, by_boundaries: bool) -> str:
    """Returns the error for a repeated call of which the packed sequences are not known."""
    begin = f"layer {layer!r} is recomputed in the backward pass, "
    if several:
        return (
            f"{begin}and its tokens were filtered with several packings. Give the layer a copy of "
            "the tokens in each pass"
        )
    name = "cu_seq_lens_q" if by_boundaries else "position_ids"
    return (
        f"{begin}outside the call that knows the packed sequences. Checkpoint each layer by "
        f"itself, with use_reentrant=False, or pass {name} to the layer; insert the filter after "
        f"the whole checkpointed layer, not in a part of it; and do not change {name} in place "
        "before the backward pass"
    )


def _refuse_packed(positions: Tensor, *, readable: bool) -> None:
    """Raises ValueError in a call that cannot separate sequences if positions may restart."""
    if not readable or holds((positions.diff(dim=1) != 1).any()):
        raise ValueError(
            "jit.trace and torch.vmap cannot separate sequences by position_ids in models with "
            "filters; give the model attention_mask if no sequences are packed, or cu_seq_lens_q"
        )


def _check_covers(name: str, boundaries: Tensor, batch: int, tokens: int, layer: str) -> None:
    """Checks that boundaries are those of the flattened batch, not of its items without padding.

    Some libraries give the latter beside padded items of (batch, tokens).
    """
    if batch == 1 or is_exported() or is_transformed() or boundaries.dim() != 1:
        return
    starts = torch.arange(0, batch * tokens + 1, tokens, device=boundaries.device)
    require(
        torch.isin(starts, boundaries).all() & (boundaries[-1] == batch * tokens),
        f"layer {layer!r} gets {batch} items of {tokens} tokens and {name}, whose sequences do not "
        "end where the items end. If the items are padded, leave it out, and give a padding mask",
    )


def _read(
    calls: Sequence[Call], batch: int, tokens: int, layer: str, padding_mask: Tensor | None
) -> Tensor | None:
    for call in calls:
        name, boundaries = call.cu_seqlens or ("", None)
        if isinstance(boundaries, list | tuple):
            boundaries = torch.tensor(boundaries)
        if isinstance(boundaries, Tensor):
            _check_covers(name, boundaries, batch, tokens, layer)
            # A mask that shows no padding may be given as well.
            if padding_mask is not None and not (is_exported() or is_transformed()):
                require(
                    ~padding_mask.any(),
                    f"layer {layer!r} gets packed sequences ({name}) and a mask that shows "
                    "padding; pack sequences without padding, or pass only one of the two",
                )
            return boundaries
    if padding_mask is not None:
        return None
    # In generation, which gives the model a cache, positions begin anew after padding on the left.
    # A cache that the model makes itself, as in training, is not used.
    taking = calls_with_cache(calls)
    if taking and taking[-1].cache is not None and not torch.is_grad_enabled():
        return None
    positions: Any = next((c.positions for c in calls if isinstance(c.positions, Tensor)), None)
    # One row is that of all items.
    if positions is None or positions.shape not in ((batch, tokens), (1, tokens)):
        return None
    if torch.compiler.is_compiling():
        if not is_exported():
            torch._assert_async(
                (positions.diff(dim=1) == 1).all(),
                "position_ids do not increase by one, so sequences are packed; compiled models "
                "with filters need cu_seq_lens_q to tell them apart",
            )
        elif calls[-1].positions is not None:
            warnings.warn(
                "the exported program will take each item for one sequence: its filters do not see "
                "the position_ids of packed sequences. Give the model cu_seq_lens_q for these",
                stacklevel=2,
            )
        return None
    if not has_values(positions):
        return None
    batched = torch._C._functorch.is_batchedtensor(positions)
    if batched or is_jit_traced():
        _refuse_packed(positions, readable=not batched)
        return None
    # Read once per pass: a buffer may be refilled in ways that leave its version, as through NumPy
    # or ``.data``, and also within a pass. Inference-mode tensors have no version.
    key = weakref.ref(calls[-1]), version_of(positions), batch
    if positions not in _BOUNDARIES or _BOUNDARIES[positions][0] != key:
        starts = torch.ones_like(positions, dtype=torch.bool)
        starts[:, 1:] = positions.diff(dim=1) != 1  # as transformers separates sequences
        starts = starts.expand(batch, tokens)
        if starts.sum() == batch:
            _BOUNDARIES[positions] = key, None
        else:
            begin = starts.flatten().nonzero()[:, 0]
            _BOUNDARIES[positions] = key, torch.cat([begin, begin.new_tensor([starts.numel()])])
    found: Tensor | None = _BOUNDARIES[positions][1]
    return found
