"""Orthogonalisation: figures of the specifications, singular values against float64, both forms, stacks, extremes."""

import pytest
import torch
from torch import Tensor

from gpt_optim import newton_schulz, polar_express, reference
from gpt_optim.orthogonalize import POLAR_EXPRESS

SHAPES = [(24, 24), (16, 64), (64, 16)]
LARGE = [(300, 300), (260, 700), (700, 260)]  # several panels of a symmetric product, the last one cut
BOUNDS = pytest.mark.parametrize(
    ("function", "low", "high"), [(newton_schulz, 0.68, 1.21), (polar_express, 0.84, 1.15)], ids=["ns", "polar"]
)
FUNCTIONS = pytest.mark.parametrize("function", [newton_schulz, polar_express])


@pytest.fixture(autouse=True)
def no_bfloat16_units(monkeypatch):
    """The same default on every processor: float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)


def with_singular_values(shape: tuple[int, int], singular: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    return (u * singular) @ v


@BOUNDS
@pytest.mark.parametrize("form", ["direct", "gram"])
@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_singular_values_and_singular_vectors(function, low, high, form, shape):
    torch.manual_seed(0)
    x = with_singular_values(shape, torch.logspace(-1, 0, min(shape), dtype=torch.float64))
    y = function(x.float(), dtype=torch.float32, form=form).double()
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    in_basis = u.T @ y @ v.T  # the same singular vectors: this is diagonal
    values = in_basis.diagonal()
    assert values.min() > low and values.max() < high
    assert (in_basis - torch.diag(values)).abs().max() < 1e-3


@FUNCTIONS
@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_both_forms_equal_the_twin_in_float64(function, shape):
    torch.manual_seed(2)
    x = torch.randn(shape, dtype=torch.float64)
    expected = getattr(reference, function.__name__)(x)
    for form in ("direct", "gram", None):
        torch.testing.assert_close(function(x, dtype=torch.float64, form=form), expected, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(function(x.float(), form=form).double(), expected, rtol=1e-3, atol=1e-4)


def test_scalar_map_of_polar_express():
    """As in the specification of the speedrun: five polynomials in sequence."""

    def value(s: Tensor) -> Tensor:
        for a, b, c in POLAR_EXPRESS:
            s = s * (a + b * s**2 + c * s**4)
        return s

    points = torch.tensor([1e-9, 1e-3, 3e-3, 1e-2, 0.1, 1 / 1.02, 1.0], dtype=torch.float64)
    expected = [989.4684e-9, 0.858873, 0.966383, 1.0271, 1.059161, 0.903537, 0.8591]
    torch.testing.assert_close(value(points), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-5)
    assert float(value(points[:1]) / points[0]) == pytest.approx(989.4684, abs=1e-3)
    between = value(torch.linspace(1e-3, 1 / 1.02, 400_000, dtype=torch.float64))
    assert float(between.min()) == pytest.approx(0.858873, abs=2e-6)
    assert float(between.max()) == pytest.approx(1.141127, abs=2e-6)


def hash_filled(count: int, seed: int) -> Tensor:
    """The pseudo-random numbers in [-1, 1) of the specification's golden figures."""
    values = []
    for i in range(count):
        h = (1103515245 * i + 12345 + 777767777 * seed) % 2**32
        h = (1103515245 * (h ^ (h >> 16))) % 2**32
        values.append(2 * ((h ^ (h >> 13)) / 2**32 - 0.5))
    return torch.tensor(values, dtype=torch.float64).float()


@pytest.mark.parametrize("form", ["direct", "gram"])
def test_golden_figures_of_the_speedrun(form):
    values = hash_filled(3072 * 768, seed=1)
    square = polar_express(values[: 768 * 768].view(768, 768), dtype=torch.float32, form=form)
    assert float(square.norm()) == pytest.approx(27.8027, abs=2e-4)
    assert float(torch.linalg.matrix_norm(square, 2)) == pytest.approx(1.1411, abs=1e-4)
    tall = polar_express(values.view(3072, 768), dtype=torch.float32, form=form)
    assert float(tall.norm()) == pytest.approx(27.6769, abs=2e-4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("form", ["direct", "gram"])
def test_gaussian_matrix_in_bfloat16(transposed, form):
    """GPT-2's 768 x 3072 where bfloat16 is fast, a smaller one of the same proportion elsewhere."""
    fast = torch.cuda.is_available()
    torch.manual_seed(3)
    x = torch.randn((768, 3072) if fast else (96, 384), device="cuda" if fast else "cpu")
    x = x.mT if transposed else x
    values = torch.linalg.svdvals(polar_express(x, dtype=torch.bfloat16, form=form).double())
    assert values.min() > 0.84 and values.max() < 1.15


@FUNCTIONS
@pytest.mark.parametrize("form", ["direct", "gram"])
def test_low_rank_in_bfloat16_does_not_explode(function, form):
    torch.manual_seed(10)
    x = torch.randn(64, 5) @ torch.randn(5, 256)
    assert torch.linalg.matrix_norm(function(x, dtype=torch.bfloat16, form=form), 2) < 1.3


@pytest.mark.parametrize(
    ("units", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({}, torch.float32)],
)
def test_dtype_follows_the_processor(monkeypatch, units, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    x = torch.randn(8, 24)
    assert torch.equal(newton_schulz(x), newton_schulz(x, dtype=expected))
    assert not torch.equal(newton_schulz(x, dtype=torch.bfloat16), newton_schulz(x, dtype=torch.float32))


@BOUNDS
@pytest.mark.parametrize("form", ["direct", "gram"])
@pytest.mark.parametrize("shape", [(256, 256), (128, 512), (512, 128)])
def test_low_rank(function, low, high, form, shape):
    """What has no singular value stays small beside what has one."""
    torch.manual_seed(4)
    rank = 5
    singular = torch.zeros(min(shape), dtype=torch.float64)
    singular[:rank] = torch.linspace(1.0, 0.2, rank, dtype=torch.float64)
    values = torch.linalg.svdvals(function(with_singular_values(shape, singular).float(), form=form).double())
    assert values[:rank].min() > low and values[:rank].max() < high
    assert values[rank:].max() < 2e-3


@FUNCTIONS
@pytest.mark.parametrize("form", ["direct", "gram"])
@pytest.mark.parametrize("condition", [1e-2, 1e-5, 1e-9])
def test_ill_conditioned_in_float32(function, form, condition):
    """Every singular value goes where the polynomial sends it, to float32's accuracy for the largest."""
    torch.manual_seed(5)
    singular = torch.logspace(0, 1, 200, base=condition, dtype=torch.float64)
    x = with_singular_values((200, 800), singular)
    expected = getattr(reference, function.__name__)(x)
    error = torch.linalg.matrix_norm(function(x.float(), form=form).double() - expected, 2)
    assert error < 5e-3


@FUNCTIONS
@pytest.mark.parametrize("form", ["direct", "gram"])
@pytest.mark.parametrize("shape", SHAPES)
def test_extremes(function, form, shape):
    torch.manual_seed(6)
    x = torch.randn(3, *shape)
    expected = function(x, form=form)
    torch.testing.assert_close(function(1e15 * x, form=form), expected, rtol=1e-3, atol=1e-4)
    tiny = function(1e-20 * x, form=form)  # far below eps: next to nothing, as without any gradient
    assert tiny.isfinite().all() and tiny.abs().max() < 1e-6
    assert function(torch.zeros_like(x), form=form).abs().max() == 0
    mixed = torch.stack([x[0], torch.zeros_like(x[0]), 1e15 * x[1]])
    torch.testing.assert_close(function(mixed, form=form)[0], expected[0], rtol=1e-3, atol=1e-4)


@FUNCTIONS
@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_a_stack_equals_its_matrices_one_by_one(function, shape):
    torch.manual_seed(1)
    stack = torch.randn(2, 3, *shape)
    together = function(stack)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], function(stack[i, j]), rtol=1e-3, atol=1e-4)


@FUNCTIONS
def test_views_are_left_as_they_were(function):
    torch.manual_seed(7)
    fused = torch.randn(4, 3 * 300, 300)
    before = fused.clone()
    keys = fused[:, 300:600]
    torch.testing.assert_close(function(keys), function(keys.contiguous()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(function(keys.mT), function(keys).mT, rtol=1e-3, atol=1e-4)
    assert torch.equal(fused, before)
    assert function(torch.empty(0, 8, 4)).shape == (0, 8, 4)


@FUNCTIONS
def test_compiled_equals_eager(monkeypatch, function):
    monkeypatch.undo()  # the processor's own dtype
    torch.manual_seed(8)
    x = torch.randn(2, 260, 520)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x, form="direct"), rtol=1e-3, atol=1e-4)


def test_threads_do_not_change_the_result():
    """As many matrices at a time as there are threads: in what groups must not matter."""
    torch.manual_seed(9)
    x, threads = torch.randn(5, 260, 520), torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(polar_express(x))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_dtypes():
    x = torch.randn(8, 4, dtype=torch.bfloat16)
    assert newton_schulz(x).dtype == torch.bfloat16
    in_half = newton_schulz(x.float(), dtype=torch.bfloat16)
    assert in_half.dtype == torch.float32 and not torch.equal(in_half, newton_schulz(x.float()))


def test_errors():
    with pytest.raises(ValueError, match="only matrices"):
        newton_schulz(torch.ones(3))
    with pytest.raises(ValueError, match="got 'diagonal'"):
        polar_express(torch.ones(3, 4), form="diagonal")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        newton_schulz(torch.ones(3, 4), steps=0)
