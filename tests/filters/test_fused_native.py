"""The native kernel with several threads and in every vector width."""

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spaudio.filters import DepthwiseFilter, filterbank
from spaudio.filters.fused import cpu
from spaudio.filters.fused.problem import Problem
from tests.filters.causality import assert_causal
from tests.filters.test_fused import draw, relative_errors, run


def step(gains: int = 0, seed: int = 0) -> list[Tensor]:
    """Result and gradients of a bank with more groups than parts."""
    generator = torch.Generator().manual_seed(seed)
    shape = [(7,), (44, 7), (3, 50, 7)][gains]
    leaves = [
        torch.randn(s, generator=generator).requires_grad_() for s in ((3, 50, 44), (7, 9), shape)
    ]
    y = filterbank(*leaves, backend="cpu")
    return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]


@pytest.mark.parametrize("gains", range(3))
def test_same_bits_every_time_and_near_those_of_one_thread(gains: int) -> None:
    torch.set_num_threads(1)
    alone = step(gains)
    for threads in (1, 2, 5, 64):
        torch.set_num_threads(threads)
        first = step(gains)
        for a, b in zip(first, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
        for _ in range(10):
            assert all(torch.equal(a, b) for a, b in zip(first, step(gains), strict=True))


def test_sums_over_many_groups_are_exact() -> None:
    """A part has several groups here, and more tokens than are summed at once."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(s, generator=generator).requires_grad_() for s in ((70, 2100, 8), (4, 6), (4,))
    ]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    gradients = torch.autograd.grad(filterbank(*leaves, backend="cpu").sum(), leaves)
    expected = torch.autograd.grad(filterbank(*exact, backend="reference").sum(), exact)
    for a, b in zip(gradients, expected, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 3e-7


def test_python_threads_do_not_disturb_each_other() -> None:
    torch.set_num_threads(2)
    expected = [step(seed % 3, seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            results = pool.map(lambda seed: step(seed % 3, seed), range(12))
            for got, want in zip(results, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_own_threads_where_torch_has_no_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    expected = step(2)
    library = cpu.library()
    assert library is not None
    monkeypatch.setattr(library, "_region", None)
    assert all(torch.equal(a, b) for a, b in zip(step(2), expected, strict=True))


@pytest.fixture(scope="module")
def widest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> cpu.Library:
    """The library with its 16-lane code compiled for any processor; slow, from the same source.

    It is kept in pytest's cache until a source changes.
    """
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = Path(cpu.__file__).with_name("native")
    command = [compiler, "-O0", "-std=c++17", "-fPIC", "-shared", "-pthread",
               "-DSPAUDIO_ANY_PROCESSOR", *map(str, sorted(folder.glob("*.cpp")))]  # fmt: skip
    sources = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    key = hashlib.sha256(" ".join(command).encode() + sources).hexdigest()[:16]
    cache = getattr(request.config, "cache", None)  # not with -p no:cacheprovider
    kept = cache.mkdir("native") if cache is not None else tmp_path_factory.mktemp("native")
    target = Path(kept) / f"{key}.so"
    if not target.is_file():
        built = target.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", str(built)], check=True)
        built.rename(target)
    return cpu.Library(target)


@pytest.fixture(params=[4, 8, 16])
def lanes(request: pytest.FixtureRequest) -> int:
    """Floats per vector."""
    return int(request.param)


@pytest.fixture
def library(widest: cpu.Library, lanes: int) -> cpu.Library:
    """A library that has vectors of so many lanes."""
    found = cpu.library() if lanes < 16 else widest
    assert found is not None
    if found.lanes < lanes:
        pytest.skip("this processor has no such vectors")
    return found


def test_every_vector_width(library: cpu.Library, lanes: int) -> None:
    scales = [(4, 9), (1, 1), (2, 40), (14, 2), (30, 4), (3, 3)]
    for gains, activation in enumerate(("gelu", "relu", "relu")):
        x, kernels, gain, grad = draw((2, 130, 37), scales, gains)
        exact = run((x, kernels, gain, grad), "reference", torch.float64, activation=activation)
        flat = torch.cat([kernel.flatten() for kernel in kernels]).float()
        shapes = [size for scale in scales for size in scale]
        problem = Problem(x.float(), flat, shapes, gain.float(), None, False, activation)
        y = library.forward(problem, lanes=lanes)
        grads = library.backward(grad.float(), problem, [True] * 3, lanes=lanes)
        expected = [exact[0], exact[1], torch.cat([k.flatten() for k in exact[3:]]), exact[2]]
        assert max(relative_errors([y, *grads], expected)) < 3e-6


SHORT, LONG = [(1, 1), (14, 2), (30, 4), (3, 3)], [(4, 9), (2, 40), (5, 16)]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("gains", range(3))
@pytest.mark.parametrize("scales", [SHORT, LONG])
def test_products_of_bfloat16(
    widest: cpu.Library, own: bool, gains: int, scales: list[tuple[int, int]]
) -> None:
    """Products of such values are exact in float32, so that only sums and the result are rounded.

    Gradients of long kernels' responses are rounded too. ``own`` is the library of this processor,
    which may compute in float32.
    """
    residual = scales == SHORT
    x, kernels, gain, grad = draw((2, (96, 131, 194)[gains], 37), scales, gains)
    x, grad = x.bfloat16(), grad.bfloat16()
    rounded = [kernel.bfloat16().double() for kernel in kernels]
    values = (x.double(), rounded, gain, grad.double())
    exact = run(values, "reference", torch.float64, activation="relu", residual=residual)
    shapes = [size for scale in scales for size in scale]
    library = cpu.library() if own else widest
    assert library is not None

    def problem(kernels: list[Tensor]) -> Problem:
        flat = torch.cat([kernel.flatten() for kernel in kernels]).float()
        return Problem(x, flat, shapes, gain.float(), None, False, "relu", residual)

    y = library.forward(problem(rounded))
    dx, *grads = library.backward(grad, problem(rounded), [True] * 3)
    assert (y.dtype, dx.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (y != exact[0].bfloat16()).float().mean() < 2e-3  # those between two values
    assert max(relative_errors([y, dx], exact[:2])) < 2**-8
    taps = torch.cat([k.flatten() for k in exact[3:]])
    exactly = scales == SHORT and gains < 2
    assert max(relative_errors(grads[:1], [taps])) < (3e-6 if exactly else 2e-3)
    assert max(relative_errors(grads[1:], [exact[2]])) < 3e-6
    if not own:  # kernels are rounded as torch rounds them
        assert torch.equal(library.forward(problem(kernels)), y)


def test_a_later_token_changes_no_bit_in_any_vector_width(library: cpu.Library, lanes: int) -> None:
    torch.manual_seed(0)
    kernels = torch.randn(5 * 9 + 4 * 2)

    def run(x: Tensor) -> Tensor:
        problem = Problem(x, kernels, [5, 9, 4, 2], weights, None, True, "relu")
        return library.forward(problem, lanes=lanes)

    # 37 dimensions are no multiple of any width; 130 tokens are several blocks.
    for gains, threads in (((9,), 1), ((37, 9), 3), ((2, 130, 9), 1), ((2, 130, 9), 3)):
        weights = torch.randn(gains)
        torch.set_num_threads(threads)
        assert_causal(run, torch.randn(2, 130, 37), lambda token: token * -3 + 1)


def test_padding_at_the_end_is_skipped_without_changing_a_bit(
    library: cpu.Library, lanes: int
) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # clips of all lengths use the same buffers
    lengths = torch.tensor([[130], [0], [37], [129], [1]])
    padding = torch.arange(130) >= lengths
    kernels, shapes = torch.randn(5 * 9 + 4 * 2), [5, 9, 4, 2]

    def extended(signal: Tensor) -> Tensor:  # by a token of zeros that is no padding
        return torch.nn.functional.pad(signal, (0, 0, 0, 1))

    for dtype in (torch.float32, torch.bfloat16):
        x, grad = torch.randn(2, 5, 130, 21, dtype=dtype)
        for causal, gains in ((True, (9,)), (False, (21, 9)), (False, (5, 130, 9))):
            weights = torch.randn(gains)
            options = causal, "relu", True
            short = Problem(x, kernels, shapes, weights, padding, *options)
            y = library.forward(short, lanes)
            dx, *shared = library.backward(grad, short, [True] * 3, lanes)
            if len(gains) == 3:
                weights = extended(weights)
            whole = torch.cat([padding, torch.zeros(5, 1, dtype=torch.bool)], 1)
            long = Problem(extended(x), kernels, shapes, weights, whole, *options)
            assert torch.equal(library.forward(long, lanes)[:, :130], y)
            long_dx, *long_shared = library.backward(extended(grad), long, [True] * 3, lanes)
            if len(gains) == 3:
                long_shared[1] = long_shared[1][:, :130]
            assert torch.equal(long_dx[:, :130], dx)
            assert all(torch.equal(a, b) for a, b in zip(shared, long_shared, strict=True))


def test_depthwise_in_every_vector_width(library: cpu.Library, lanes: int) -> None:
    torch.manual_seed(0)
    # 61 dimensions are two vectors, one, and a rest in every width. 35 items are more than parts;
    # one item is shared by several threads.
    for items, taps, causal in ((35, 1, True), (1, 4, True), (35, 4, False), (35, 7, False)):
        x, grad = torch.randn(2, items, 21, 61)
        mask = torch.rand(items, 21) < 0.2
        layer = DepthwiseFilter(61, taps, causal=causal)
        for padding in (None, mask):
            for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2**-8)):
                given = x.to(dtype), layer.kernels.detach(), padding, layer.extent[0], lanes
                torch.set_num_threads(1)
                found = [library.depthwise(*given), *library.depthwise_backward(grad, *given)]
                torch.set_num_threads(3)
                again = [library.depthwise(*given), *library.depthwise_backward(grad, *given)]
                assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
                for i, wanted in enumerate(([True, False], [False, True])):
                    part = library.depthwise_backward(grad, *given, wanted=wanted)
                    assert torch.equal(part[i], found[1 + i])
                    assert part[1 - i].numel() == 0
                exact = x.to(dtype).double().requires_grad_()
                kernels = layer.kernels.detach().double().requires_grad_()
                y = torch.func.functional_call(layer, {"kernels": kernels}, (exact, padding))
                grads = torch.autograd.grad(y, [exact, kernels], grad.to(dtype).double())
                assert max(relative_errors(found, [y.detach(), *grads])) < tolerance


def test_depthwise_of_large_signals_is_that_of_their_parts(
    library: cpu.Library, lanes: int
) -> None:
    """Signals of 16 MiB or more are stored past the caches."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    kernels = torch.randn(64, 4)
    for tokens in (1024, 1023):
        x, grad = torch.randn(2, 64, tokens, 64)
        padding = torch.arange(tokens) >= torch.arange(960, 1024).unsqueeze(1)
        y = library.depthwise(x, kernels, padding, 1, lanes)
        dx, _ = library.depthwise_backward(grad, x, kernels, padding, 1, lanes)
        for part in (slice(0, 32), slice(32, 64)):
            given = x[part], kernels, padding[part], 1, lanes
            assert torch.equal(library.depthwise(*given), y[part])
            assert torch.equal(library.depthwise_backward(grad[part], *given)[0], dx[part])


def test_depthwise_is_the_same_to_the_bit_for_a_padded_clip(
    library: cpu.Library, lanes: int
) -> None:
    torch.manual_seed(0)
    x, kernels = torch.randn(1, 11, 61), torch.randn(61, 4)
    for count in range(1, 11):
        padding = (torch.arange(11) >= count).unsqueeze(0)
        padded = library.depthwise(x, kernels, padding, 1, lanes)
        alone = library.depthwise(x[:, :count].contiguous(), kernels, None, 1, lanes)
        assert torch.equal(padded[:, :count], alone)
        assert torch.equal(padded[:, count:], x[:, count:])


@pytest.mark.parametrize("causal", [True, False])
def test_the_depthwise_operator_has_derivatives_and_keeps_its_precision(causal: bool) -> None:
    torch.manual_seed(0)
    layer = DepthwiseFilter(5, 4, causal=causal)
    x = torch.randn(2, 9, 5, requires_grad=True)
    mask = torch.arange(9) >= torch.tensor([[9], [6]])

    def penalty(y: Tensor) -> list[Tensor]:
        """The result, and its first, second and third derivatives."""
        found, total = [y], y.square().sum()
        for _ in range(3):
            grads = torch.autograd.grad(total, [x, layer.kernels], create_graph=True)
            found += grads
            total = torch.stack([g.square().mean() for g in grads]).sum()
        return found

    expected = penalty(x + layer.filtered(x, mask))
    torch.testing.assert_close(penalty(layer(x, mask)), expected, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x, mask), layer(x, mask).float())
        torch.testing.assert_close(layer(x, mask), expected[0])


def test_a_library_of_another_version_is_not_called(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    source, target = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("int spaudio_lanes(void) { return 8; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    with pytest.raises(OSError, match="another version"):
        cpu.Library(target)
