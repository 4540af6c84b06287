"""The calls in progress around a filtered layer: its own and those of the modules around it.

The padding mask and the key/value cache are arguments of the whole model; a layer often gets only
what the model derives from them. Forward hooks on the surrounding modules record these arguments
while a call runs.
"""

import inspect
import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from spaudio.filters.insertion.layout import PaddingFunction
from spaudio.filters.tracing import has_values, is_eager, is_exported

# By priority: of several arguments of one call, the first that is not None is read.
PADDING_ARGUMENTS = (
    "tgt_key_padding_mask",
    "src_key_padding_mask",
    "key_padding_mask",
    "padding_mask",
    "attention_mask",
)
# Masks of queries and keys. One per item may include the padding.
ATTENTION_MASKS = ("src_mask", "tgt_mask", "attn_mask", "mask", "band_mask")
# Lengths of the items, as libraries for speech name them.
LENGTHS = (
    *("lengths", "length", "lens", "ilens", "xlens"),
    *(
        f"{what}_{number}"
        for what in ("input", "inputs", "x", "xs", "src", "seq", "sequence", "feat", "feats",
                     "feature", "features", "frame", "audio", "wav", "speech")
        for number in ("lengths", "length", "lens", "len")
    ),
)  # fmt: skip
# Boundaries of packed sequences, as transformers names them (first) and other libraries do.
CU_SEQLENS = ("cu_seq_lens_q", "cu_seqlens_q", "cu_seq_lens", "cu_seqlens")
# In place of an argument's name.
FUNCTION = "the mask of the function that was given as padding_mask"
# Masks of other names, which are not read.
_OTHER_MASK = re.compile("mask(?!ed)|pad")
CACHE_ARGUMENTS = (
    "cache",
    "past_key_values",
    "past_key_value",
    "layer_past",
    "cache_params",
    # Of other libraries. Their caches cannot tell their tokens, so they are refused.
    "kv_cache",
    "incremental_state",
    "inference_params",
    "past_kv",
    "past",
)
# Position of the first token in caches that the modules hold themselves.
POSITION = "input_pos"
# Of transformers' models only: elsewhere, a state can be anything.
RECURRENT_ARGUMENTS = ("state", "mems", "past_buckets_states")


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        watch: The watch that recorded it.
        padding: Name and value of the argument that may hold the padding mask; the value is None
            if none was given. None if the module takes no such argument.
        attends_by: Name and value of a mask of queries and keys that may differ between items, and
            so may include the padding; None if none was given.
        several: Whether the module has several inputs: its mask may belong to other tokens than
            the layer's.
        takes_cache: Whether the module takes a key/value cache.
        cache: The cache, or None.
        past: Number of tokens in the cache when the call began; None if the cache cannot tell.
        positions: The argument ``position_ids``, or None.
        cu_seqlens: Name and value of the argument that holds the boundaries of packed sequences;
            None if none was given.
        lengths: Name and value of the argument that holds the items' lengths; None if none was
            given.
        other_masks: Names and values of masks that are not read and may be (batch, tokens).
        tokens: The first tensor among the arguments but parameters, which all calls share. It
            identifies a call when it is repeated. None if there is none.
        site: Where the call was made, by which one that an interrupt ended is recognised.
        has_gradients: Whether gradients were enabled when a call around the layer began.
        hidden: In compiled and exported code, calls in progress that do not count during this one:
            those of the same module, and those within.
        token: Distinguishes one call from another.
    """

    watch: "Watch"
    padding: tuple[str, Any] | None
    attends_by: tuple[str, torch.Tensor] | None
    several: bool
    takes_cache: bool
    cache: Any
    past: Any
    positions: Any
    cu_seqlens: tuple[str, Any] | None
    lengths: tuple[str, Any] | None
    other_masks: Sequence[tuple[str, torch.Tensor]]
    tokens: torch.Tensor | None
    site: tuple[Any, ...] | None = None
    has_gradients: bool = False
    hidden: list["Call"] = field(default_factory=list)
    token: object = field(default_factory=list)  # Dynamo cannot build object()


class _InProgress(threading.local):
    """The recorded calls of a thread, outermost first. ``nn.DataParallel`` uses several threads."""

    def __init__(self) -> None:
        self.calls: list[Call] = []


_IN_PROGRESS = _InProgress()


def in_progress() -> Sequence[Call]:
    """Returns the recorded calls of this thread, outermost first."""
    return _IN_PROGRESS.calls


class Watch:
    """Records the calls of one module.

    Args:
        module: The module.
        padding_mask: ``"auto"`` for the usual arguments, the name of one argument, a function, or
            None.
        outermost: Whether the module is the whole model, whose arguments a function takes.
    """

    def __init__(
        self,
        module: nn.Module,
        padding_mask: str | PaddingFunction | None,
        outermost: bool,
    ) -> None:
        self.names = argument_places(module.forward)
        self.open = takes_any_name(module.forward)
        self.several = has_several_inputs(self.names)
        self.function: PaddingFunction | None = None
        usual: Sequence[str | None] = ()
        if not callable(padding_mask):
            usual = PADDING_ARGUMENTS if padding_mask == "auto" else (padding_mask,)
        elif outermost:
            self.function = padding_mask
        self.padding_names = [n for n in usual if n and (self.open or n in self.names)]
        # An argument that arrives in **kwargs is known to be a mask when it is given.
        self.takes_padding = self.function is not None or any(n in self.names for n in usual)
        self.is_attention = isinstance(module, nn.MultiheadAttention)
        # Arguments whose mask of two axes was (batch, tokens) in an earlier call, by its shape.
        self.were_padding: set[str] = set()
        # In transformers, a mask of two axes is (batch, tokens) by convention.
        kinds = type(module).__mro__
        self.two_axes_are_padding = any(k.__module__.startswith("transformers.") for k in kinds)
        # Only "auto" looks at them. In a decoder's layer, src_mask is that of the memory.
        memory = "tgt_mask" in self.names and not self.several
        self.attention_mask_names = [
            n
            for n in ATTENTION_MASKS
            if padding_mask == "auto" and not (memory and n == "src_mask")
        ]
        # Only "auto" leaves masks unread that the user has not named.
        self.other_names = [
            n
            for n in self.names
            if padding_mask == "auto" and _OTHER_MASK.search(n) and n not in PADDING_ARGUMENTS
        ]
        self.boundary_names = [n for n in CU_SEQLENS if n in self.names]
        self.length_names = [n for n in LENGTHS if n in self.names]
        recurrent = RECURRENT_ARGUMENTS if self.two_axes_are_padding else ()
        self.cache_names = (*CACHE_ARGUMENTS, *recurrent)
        self.takes_cache = any(n in self.names for n in (*self.cache_names, POSITION))
        # Its own models, such as EncodecModel, give zero at padding in padding_mask too; a forward
        # that a user writes in a subclass may not.
        where = getattr(module.forward, "__module__", None) or ""
        self.zero_is_padding = where.startswith("transformers.")
        # Whether a call with gradients was given padding or packed sequences. Only of eager calls:
        # a layer is not repeated without what was compiled together with it.
        self.gave_padding = False
        self.announced: set[str] = set()  # masks of other names that a warning has named
        self.handles: list[RemovableHandle] = []  # of the hooks
        self.filters = 0  # number of those that use this watch

    def attach(self, module: nn.Module) -> None:
        """Registers the hooks that record the module's calls."""
        self.handles = [
            module.register_forward_pre_hook(self.begin, with_kwargs=True),
            module.register_forward_hook(self.end, always_call=True),
        ]

    def release(self) -> None:
        """Gives up the use by one filter; after the last, the hooks are removed."""
        self.filters -= 1
        if not self.filters:
            self.remove()

    def remove(self) -> None:
        """Removes the hooks."""
        for handle in self.handles:
            handle.remove()

    @property
    def useful(self) -> bool:
        """Whether the module takes any argument that is recorded."""
        named = any(n in self.names for n in ("position_ids", *self.attention_mask_names))
        found = self.boundary_names or self.length_names or self.other_names
        return named or self.takes_padding or self.takes_cache or self.open or bool(found)

    def is_padding(self, name: str, value: Any, batch: int, tokens: int) -> bool:
        """Whether a mask of two axes is (batch, tokens), even if it may be (tokens, tokens).

        It is in models of transformers, and where it was in an earlier call: otherwise a batch of
        as many items as tokens would end a training that has gone well before.
        """
        if self.two_axes_are_padding:
            return True
        if not isinstance(value, torch.Tensor) or value.is_floating_point() or is_exported():
            return False
        if is_eager() and value.shape == (batch, tokens) and batch not in (1, tokens):
            self.were_padding.add(name)
        return name in self.were_padding

    def record(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """Returns the record of a call of the module with these arguments."""

        def given(*names: str) -> list[tuple[str, Any]]:
            places = [(n, self.names.get(n, -1)) for n in names]
            values = [
                (n, kwargs.get(n, args[i] if 0 <= i < len(args) else None)) for n, i in places
            ]
            return [(name, value) for name, value in values if value is not None]

        def named(own: Sequence[str], known: Collection[str]) -> Sequence[str]:
            return [*own, *(n for n in kwargs if n in known and n not in own)] if self.open else own

        padding = given(*self.padding_names)
        if padding and not self.takes_padding:
            self.takes_padding = True
        padding += [(n, None) for n in self.padding_names if n in self.names]
        if self.function is not None:
            padding = [(FUNCTION, self._compute(dict(given(*self.names)) | dict(kwargs)))]
        masks = [m for m in given(*self.attention_mask_names) if is_mask_per_item(m[1])]
        if self.is_attention:  # in cross-attention, the masks are those of the keys
            query, key = (dict(given(n)).get(n) for n in ("query", "key"))
            if query is not key:
                padding, masks = [], []
        caches = given(*self.cache_names) if self.takes_cache else []
        caches += [one for one in given(POSITION) if is_later(one[1])]
        cache = next((value for _, value in caches if not isinstance(value, bool)), None)
        return Call(
            self,
            padding[0] if padding else None,
            masks[0] if masks else None,
            self.several or (self.open and has_several_inputs(kwargs)),
            self.takes_cache,
            cache,
            0 if cache is None else tokens_in(cache),
            dict(given("position_ids")).get("position_ids"),
            next(iter(given(*named(self.boundary_names, CU_SEQLENS))), None),
            next(iter(given(*named(self.length_names, LENGTHS))), None),
            [(n, v) for n, v in given(*self.other_names) if may_be_flat(v)],
            next((v for v in (*args, *kwargs.values()) if is_of_call(v)), None),
        )

    def _compute(self, arguments: dict[str, Any]) -> torch.Tensor | None:
        """Returns the mask that the user's function computes.

        Raises:
            ValueError: If it is not boolean (batch, tokens).
        """
        assert self.function is not None
        mask = self.function(arguments)
        check_boolean_mask(mask, "the function that was given as padding_mask must return")
        return mask

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """The forward pre-hook."""
        call = self.record(args, kwargs)
        if is_eager():
            # Without the caller itself, which goes on to another instruction.
            site = call_site(sys._getframe(1).f_back)
            call = replace(call, site=site, has_gradients=torch.is_grad_enabled())
            given = call.cu_seqlens is not None or (call.padding and call.padding[1] is not None)
            self.gave_padding |= bool(given) and torch.is_grad_enabled()
            # An interrupt (Ctrl-C) ends a call without its hook.
            self._forget(lambda earlier: not _is_within(call.site, earlier.site))
        else:  # an earlier call was interrupted, or makes this one: where, is not known
            call.hidden.extend(self._forget(lambda _: True))
        _IN_PROGRESS.calls.append(call)

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook, which also runs if the call fails."""
        last = next((c for c in reversed(_IN_PROGRESS.calls) if c.watch is self), None)
        self._forget(lambda call: call is last)
        if last is not None:
            _IN_PROGRESS.calls.extend(last.hidden)

    def _forget(self, is_over: Callable[[Call], bool]) -> list[Call]:
        """Removes and returns the module's first call that is over, and all that began within it.

        Several watches of one module end in any order.
        """
        calls = _IN_PROGRESS.calls
        over = (i for i, call in enumerate(calls) if call.watch is self and is_over(call))
        first = next(over, len(calls))
        gone = calls[first:]
        del calls[first:]
        return gone


def is_later(position: Any) -> bool:
    """Whether a position is certain to be after that of a first token."""
    if isinstance(position, torch.Tensor):
        known = position.numel() and is_eager() and has_values(position)
        return bool(known and position.reshape(-1)[0] > 0)
    return isinstance(position, int) and position > 0


def tokens_in(cache: Any) -> Any:
    """Number of tokens in a key/value cache of transformers; None for other caches."""
    try:
        tokens = cache.get_seq_length()
    except (AttributeError, ValueError):  # another kind of cache, or one of recurrent states
        return None
    if isinstance(tokens, torch.Tensor) and not torch.compiler.is_compiling():
        return int(tokens)  # a static cache updates this very tensor
    return tokens


def argument_places(forward: Callable[..., Any]) -> dict[str, int]:
    """Named arguments of a bound ``forward`` and their positions; -1 if only given by name."""
    parameters = inspect.signature(forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: -1 if p.kind == p.KEYWORD_ONLY else i for i, p in enumerate(named)}


def takes_any_name(forward: Callable[..., Any]) -> bool:
    """Whether a ``forward`` has ``**kwargs``."""
    parameters = inspect.signature(forward).parameters.values()
    return any(p.kind == p.VAR_KEYWORD for p in parameters)


def has_several_inputs(names: Collection[str]) -> bool:
    """Whether a module with these arguments reads several sequences."""
    sounds = ("input_features", "input_values", "speech", "audio", "wav", "feat", "frame")
    text_and_sound = "input_ids" in names and any(n.startswith(sounds) for n in names)
    return (
        ("src" in names and "tgt" in names)
        or text_and_sound
        or any(n.startswith(("decoder_", "pixel_values", "prev_output_tokens")) for n in names)
    )


def is_mask_per_item(value: Any) -> bool:
    """Whether a value may be a mask that differs between items: it has more than two axes."""
    return isinstance(value, torch.Tensor) and value.dim() > 2


def is_of_call(value: Any) -> bool:
    """Whether a value is a tensor, and no parameter."""
    return isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)


def check_boolean_mask(mask: Any, rule: str) -> None:
    """Raises ValueError, which begins with a rule, if a mask is not None or boolean of two axes."""
    known = isinstance(mask, torch.Tensor)
    if mask is None or (known and mask.dtype == torch.bool and mask.dim() == 2):
        return
    got = f"{mask.dtype} {tuple(mask.shape)}" if known else repr(mask)
    raise ValueError(f"{rule} a boolean mask (batch, tokens), True at padding, or None; got {got}")


def may_be_flat(value: Any) -> bool:
    """Whether a value has two axes, or a middle or last one of size 1 besides."""
    if not isinstance(value, torch.Tensor) or value.dim() not in (2, 3):
        return False
    return value.dim() == 2 or 1 in value.shape[1:]


def flat_mask(value: torch.Tensor) -> torch.Tensor:
    """Returns a mask for which :func:`may_be_flat` holds, with two axes."""
    if value.dim() == 2:
        return value
    return value.squeeze(1 if value.shape[1] == 1 else 2)


def call_site(frame: FrameType | None) -> tuple[Any, ...]:
    """The code and instruction of each frame from the outermost to this one.

    Not the frames, which would keep all their variables alive.
    """
    site = []
    while frame is not None:
        site.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(reversed(site))


def _is_within(site: tuple[Any, ...] | None, outer: tuple[Any, ...] | None) -> bool:
    """Whether a call was made in another call of the same module, as that module's own code may."""
    if site is None or outer is None or len(site) <= len(outer):
        return False
    return site[: len(outer)] == outer


def calls_around(own: Call, watches: Sequence[Watch]) -> list[Call]:
    """A layer's own call and the calls in progress of ``watches``, innermost first."""
    outer = [call for call in reversed(_IN_PROGRESS.calls) if call.watch in watches]
    if outer and is_eager():  # an interrupt (Ctrl-C) ends a call without its hook
        here = call_site(sys._getframe())
        outer = [call for call in outer if call.site is None or here[: len(call.site)] == call.site]
    return [own, *outer]


def calls_with_cache(calls: Sequence[Call]) -> list[Call]:
    """The calls that take the key/value cache of a layer's own tokens, innermost first.

    The cache of a model with several inputs is that of its decoder. It counts only if a call inside
    was given a cache, too: the encoder is given none.
    """
    found: list[Call] = []
    for call in (call for call in calls if call.takes_cache):
        if not call.several or any(inner.cache is not None for inner in found):
            found.append(call)
    return found


def past_tokens(calls: Sequence[Call]) -> Any:
    """Number of tokens in the cache before these calls; None if the cache cannot tell.

    The outermost call that takes a cache knows it: inner ones may run after it has grown.
    """
    taking = calls_with_cache(calls)
    return taking[-1].past if taking else 0
