"""The base class of all filters over tokens."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.filters.arguments import check_flag, check_tokens
from spaudio.filters.definition import kernel_extent, without_padding
from spaudio.filters.registry import register
from spaudio.filters.sequences import check_state, filter_sequences
from spaudio.filters.tracing import as_leaf, is_eager, is_symbolic


class TokenFilter(nn.Module):
    """Base of all filters: ``forward(x, padding_mask) = x + filtered(x, padding_mask)``.

    A subclass defines ``convolve``, ``taps``, ``config`` and ``flops``; the base class derives the
    rest from them. One that also has a ``name`` is registered in ``FILTERS``.

    Attributes:
        name: Name of the class for :func:`spaudio.filters.make_filter`.
        causal: Whether a token sees only itself and the past.
        dim: Embedding dimension that the filter requires; None if it takes any.
    """

    name: ClassVar[str]
    dim: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            register(cls)
        elif not hasattr(cls, "name"):
            cls.name = cls.__name__  # for messages only

    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        check_flag(causal=causal)
        self.causal = causal

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        initial_state: Tensor | None = None,
        output_final_state: bool = False,
    ) -> Any:
        """Adds the filtered signal to the tokens.

        Sequences of different lengths are either padded, or packed one after another into one item.
        A causal filter can resume from the state in which it ended: its last inputs.

        Args:
            x: Token embeddings (batch, tokens, dim); (1, tokens, dim) if packed.
            padding_mask: Boolean (batch, tokens), True where a token is padding. Such tokens count
                as zeros for all other tokens and pass through unchanged.
            cu_seqlens: Integers (N + 1,): the start of each of N packed sequences, and the end of
                the last. Tokens outside pass through unchanged. Sequences do not see each other.
            initial_state: (sequences, K - 1, dim), the inputs before the first token, where K - 1
                is ``extent[0]``; zeros by default.
            output_final_state: Whether to also return the state after the last token that is not
                padding on the right.

        Returns:
            (batch, tokens, dim), or this and the final state if ``output_final_state``.

        Raises:
            ValueError: If a shape or type does not fit, both ``padding_mask`` and ``cu_seqlens``
                are given, or a filter that is not causal gets ``initial_state`` or
                ``output_final_state``. ``adaptive`` takes neither ``cu_seqlens`` nor a state.
        """
        if is_symbolic((x,), {}):
            return as_leaf(
                self,
                (x, padding_mask),
                {
                    "cu_seqlens": cu_seqlens,
                    "initial_state": initial_state,
                    "output_final_state": output_final_state,
                },
            )
        if cu_seqlens is None and initial_state is None and not output_final_state:
            return self.filtered(x, padding_mask, residual=True)
        check_tokens(x, padding_mask, self.dim)
        y, state = filter_sequences(
            self, x, padding_mask, cu_seqlens, initial_state, output_final_state
        )
        return (y, state) if output_final_state else y

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Filters the next tokens, usually one, and updates the state in place.

        Args:
            x: (batch, tokens, dim).
            state: (batch, K - 1, dim), as returned by :meth:`forward`; zeros for a new sequence. It
                may be a view. Gradients do not pass through it.

        Returns:
            (batch, tokens, dim).

        Raises:
            ValueError: As for :meth:`forward`.
        """
        check_tokens(x, None, self.dim)
        check_state(state, x.new_empty(x.shape[0], self.extent[0], x.shape[-1]))
        y: Tensor
        y, final = self(x, initial_state=state, output_final_state=True)
        state.copy_(final.detach())
        return y

    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        """Computes what :meth:`forward` adds to ``x``; zero at padded tokens.

        Args:
            x: (batch, tokens, dim).
            padding_mask: Boolean (batch, tokens), True where a token is padding.
            residual: Whether to add ``x``, including padded tokens. Some filters do so within one
                operator.

        Returns:
            (batch, tokens, dim), with the dtype of ``x``; under autocast it may be autocast's.

        Raises:
            ValueError: If a shape, type or device does not fit.
        """
        check_tokens(x, padding_mask, self.dim)
        window = F.pad(without_padding(x, padding_mask), (0, 0, *self.extent))
        y = self.convolve(window)
        if is_eager() and y.shape != x.shape:
            raise ValueError(  # the sum below might broadcast
                f"convolve of filter {self.name!r} returned {tuple(y.shape)} for a window of "
                f"{tuple(window.shape)}; expected {tuple(x.shape)}: the window has {self.extent} "
                "more tokens (extent, which follows from the lengths of taps)"
            )
        y = without_padding(y, padding_mask)
        return x + y if residual else y

    def convolve(self, window: Tensor) -> Tensor:
        """Filters a window that already includes the neighbouring tokens, without padding it.

        Args:
            window: (batch, left + tokens + right, dim), where (left, right) is the ``extent``.

        Returns:
            (batch, tokens, dim).
        """
        raise NotImplementedError

    def resume(self, window: Tensor, memory: Any) -> Tensor:
        """Like :meth:`convolve`, for tokens that arrive in pieces; see :class:`FilterStream`.

        Args:
            window: As for :meth:`convolve`.
            memory: The stream's state, from :meth:`new_memory`; may be modified.

        Returns:
            (batch, tokens, dim).
        """
        return self.convolve(window)

    def new_memory(self) -> Any:
        """Extra state that a stream needs beyond its last tokens; None for most filters."""
        return None

    def taps(self) -> Sequence[Tensor]:
        """The kernels, as ``Conv1d`` applies them.

        Returns:
            One tensor (M_i, K_i) per scale; empty for a filter without kernels. Taps that are
            several tokens apart have zeros between them.
        """
        raise NotImplementedError

    def after_taps(self) -> tuple[Tensor | None, str]:
        """What follows the kernels; the report of a run uses it to show what each kernel does.

        Returns:
            The gains, (M,) or (dim, M), or None for a sum without gains; and the activation before
            them: ``"identity"``, ``"relu"``, ``"gelu"`` or ``"silu"``.
        """
        return None, "identity"

    def config(self) -> dict[str, Any]:
        """Arguments of ``make_filter`` that rebuild this filter, as JSON values."""
        return {"name": self.name, "causal": self.causal}

    def flops(self, tokens: int, dim: int) -> int:
        """Floating-point operations of one forward pass over one sequence.

        A multiplication and an addition count as two. The activation and the residual, one
        operation per value each, are not counted.

        Args:
            tokens: Length of the sequence.
            dim: Embedding dimension.

        Returns:
            The number of operations over all embedding dimensions.
        """
        raise NotImplementedError

    @property
    def extent(self) -> tuple[int, int]:
        """Number of tokens that the kernels cover to the left and to the right of a token."""
        extents = [kernel_extent(kernel.shape[-1], self.causal) for kernel in self.taps()]
        return max((e[0] for e in extents), default=0), max((e[1] for e in extents), default=0)

    @property
    def receptive_field(self) -> tuple[float, float]:
        """Number of tokens that a token sees to its left and to its right.

        ``math.inf`` if it sees all tokens on that side.
        """
        return self.extent

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def frequency_response(self, n_fft: int = 512) -> Tensor:
        """Complex gain of every kernel at the frequencies 0, 1/n_fft, ..., 1/2 cycle per token.

        The response of a kernel to ``exp(2j pi f t)`` is ``H(f) exp(2j pi f t)``, before any
        activation; the phase is relative to the current token.

        Args:
            n_fft: Number of frequencies from 0 to 1 cycle per token; even, so that 1/2 is included.

        Returns:
            Complex (M, n_fft // 2 + 1) on the CPU, where M counts the kernels of all scales in
            order.

        Raises:
            ValueError: If ``n_fft`` is odd or below 2.
        """
        if n_fft < 2 or n_fft % 2:
            raise ValueError(f"n_fft must be even and at least 2; got {n_fft}")
        cpu: Any = {"device": "cpu"}  # whatever torch's default device is
        bins = torch.arange(n_fft // 2 + 1, **cpu)
        responses = [torch.zeros(0, len(bins), dtype=torch.complex64, **cpu)]
        for kernel in self.taps():
            taps = kernel.detach().cpu().to(torch.promote_types(kernel.dtype, torch.float32))
            left, _ = kernel_extent(taps.shape[-1], self.causal)
            # Modulo n_fft in integers, to keep the phase of long kernels exact.
            turns = torch.outer(torch.arange(taps.shape[-1], **cpu) - left, bins) % n_fft
            angle = 2 * torch.pi * turns.to(taps.dtype) / n_fft
            wave = torch.polar(torch.ones_like(angle), angle)
            responses.append(taps.to(wave.dtype) @ wave)
        return torch.cat(responses)

    def save_pretrained(self, directory: Any, **options: Any) -> None:
        """Saves weights (safetensors) and settings (JSON) to a folder or the Hugging Face Hub.

        Args:
            directory: The folder.
            options: Options of ``PyTorchModelHubMixin.save_pretrained``, such as ``push_to_hub``.

        Raises:
            ImportError: If huggingface_hub is missing.
            ValueError: If the class has no ``name`` of its own, or parameters are of several types,
                pruned or parametrized.
        """
        from spaudio.filters.hub import SavedFilters  # needs huggingface_hub

        SavedFilters.of({self.name: self}).save_pretrained(directory, **options)

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Self:
        """Loads a filter from :meth:`save_pretrained`.

        Args:
            source: Folder, or repository on the Hub.
            options: Options of ``PyTorchModelHubMixin.from_pretrained``, such as ``revision``.

        Returns:
            The filter, on the CPU, with its saved dtype and class: this one or a subclass.

        Raises:
            ImportError: If huggingface_hub is missing.
            ValueError: If there is no such folder, it does not hold exactly one filter of this
                class or a subclass, a setting is unknown, or the weights do not fit.
        """
        from spaudio.filters.hub import SavedFilters

        saved = SavedFilters.from_pretrained(source, **options).filters
        found = list(saved.values())
        if len(found) != 1 or not isinstance(found[0], cls):
            raise ValueError(
                f"{source} holds {list(saved)}, not one filter of class {cls.__name__}"
            )
        return found[0]

    def __prepare_scriptable__(self) -> Any:
        """Called by ``torch.jit.script``, which cannot compile filters."""
        raise TypeError(
            f"torch.jit.script cannot compile the filter {self.name!r}; use torch.jit.trace or "
            "torch.export.export"
        )

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return ", ".join(f"{key}={value!r}" for key, value in self.config().items())
