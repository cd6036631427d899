"""Cross-entropy on logits and on chunks of a linear map: against loops, torch's own, and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gpt_kernels import (
    SigmoidCap,
    cross_entropy,
    cross_entropy_backend,
    linear_cross_entropy,
    linear_cross_entropy_and_lse,
    linear_cross_entropy_reference,
    softcap,
)
from gpt_kernels import linear_cross_entropy_backend as backend_of
from gpt_kernels.ops.linear_cross_entropy import CHUNK_ELEMENTS, CPU_ROWS, rows_per_chunk
from gpt_kernels.testing import TOLERANCE, assert_near, check_operator, gradients

IGNORED = -100
CASES = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"softcap": 3.0},
    {"softcap": SigmoidCap()},
    {"softcap": SigmoidCap(5.0, 1.0, 2.0), "reduction": "none", "target_weights": [1.0, 0.5, 0.25]},
    {"z_loss": 0.1},
    {"z_loss": 0.1, "softcap": 2.0, "target_weights": [1.0, 0.0, 0.3], "reduction": "sum"},
    {"target_weights": [0.5, 2.0, 0.25, 1.0, 1.0, 1.0]},  # more targets than tokens
]
SHAPES = [((4,), 6, 3), ((2, 5), 7, 4), ((3, 1), 2, 1), ((2, 1, 3), 33, 5)]


def tensors(rows, V, inputs, dtype=torch.float64, ignored=True):
    generator = torch.Generator().manual_seed(V + inputs)
    x = torch.randn(*rows, inputs, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(V, inputs, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(V, rows, generator=generator)
    if ignored:
        targets.view(-1)[1] = IGNORED
    return x, weight, targets


def by_loops(logits, targets, *, target_weights=(1.0,), softcap=0.0, z_loss=0.0, reduction="mean"):
    """Row by row, target by target, in Python floats."""
    V, T = logits.shape[-1], targets.shape[-1]
    losses = []
    for sequence, row_targets in zip(logits.reshape(-1, T, V).tolist(), targets.reshape(-1, T).tolist(), strict=True):
        for r in range(T):
            if isinstance(softcap, SigmoidCap):
                z = [softcap.cap / (1 + math.exp(-(x + softcap.shift) / softcap.width)) for x in sequence[r]]
            else:
                z = [softcap * math.tanh(x / softcap) for x in sequence[r]] if softcap else sequence[r]
            lse = math.log(math.fsum(map(math.exp, z)))
            loss = 0.0
            for k, weight in enumerate(target_weights):
                if r + k < T and row_targets[r + k] != IGNORED:
                    loss += weight * (lse - z[row_targets[r + k]] + z_loss * lse**2)
            losses.append(loss)
    if reduction == "none":
        return torch.tensor(losses, dtype=torch.float64).view(targets.shape)
    total = math.fsum(losses)
    count = 1 if reduction == "sum" else (targets != IGNORED).sum().item()
    return torch.tensor(total / count, dtype=torch.float64)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_what_loops_say(shape, options):
    x, weight, targets = tensors(*shape)
    logits = x @ weight.t()
    expected = by_loops(logits, targets, **options)
    torch.testing.assert_close(cross_entropy(logits, targets, **options), expected, rtol=1e-12, atol=1e-12)
    for rows in (None, 1, 3):
        loss = linear_cross_entropy(x, weight, targets, chunk_rows=rows, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("rows", [None, 1, 4])
def test_gradients_of_chunks_are_those_of_autograd(rows, options):
    x, weight, targets = tensors((2, 5), 7, 4)
    grad = torch.randn(targets.shape if options.get("reduction") == "none" else (), dtype=torch.float64)
    found = gradients(lambda x, w: linear_cross_entropy(x, w, targets, chunk_rows=rows, **options), (x, weight), grad)
    exact = gradients(lambda x, w: cross_entropy(x @ w.t(), targets, **options), (x, weight), grad)
    for actual, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", CASES)
def test_gradients_of_the_definition_are_finite_differences(options):
    x, weight, targets = tensors((2, 3), 5, 2)
    logits = (x @ weight.t()).requires_grad_()
    torch.autograd.gradcheck(lambda logits: cross_entropy(logits, targets, **options), logits)


def test_an_extra_target_is_another_loss_of_the_same_row():
    """Whatever the row's own targets are: it counts where they are ignored, and not where it is."""
    x, weight, targets = tensors((2, 6), 9, 4)
    extra = torch.randint(9, (2, 6), generator=torch.Generator().manual_seed(1))
    extra[0, :3] = IGNORED
    both = {"target_weights": [1.0, 0.5, 0.25], "extra_targets": extra, "softcap": SigmoidCap(), "reduction": "sum"}
    plain = {**both, "target_weights": [1.0, 0.5], "extra_targets": None}
    alone = {**plain, "target_weights": [0.25]}
    apart = lambda x, w: cross_entropy(x @ w.t(), targets, **plain) + cross_entropy(x @ w.t(), extra, **alone)
    one = torch.ones((), dtype=torch.float64)
    expected = gradients(apart, (x, weight), one)
    for found in (
        gradients(lambda x, w: cross_entropy(x @ w.t(), targets, **both), (x, weight), one),
        gradients(lambda x, w: linear_cross_entropy(x, w, targets, chunk_rows=5, **both), (x, weight), one),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_plain_loss_is_that_of_torch(reduction):
    x, weight, targets = tensors((2, 5), 7, 4)
    expected = F.cross_entropy((x @ weight.t()).flatten(0, 1), targets.flatten(), reduction=reduction)
    ours = linear_cross_entropy(x, weight, targets, reduction=reduction)
    torch.testing.assert_close(ours.flatten(), expected.flatten(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precision(dtype, options):
    """Half precision rounds logits and their gradients once each; a sum over R of them is better than one."""
    x, weight, targets = tensors((2, 20), 50, 16, dtype)
    weight = (weight / 4).contiguous()
    grad = torch.ones(targets.shape if options.get("reduction") == "none" else ())
    found = gradients(lambda x, w: linear_cross_entropy(x, w, targets, chunk_rows=7, **options), (x, weight), grad)
    exact = gradients(
        lambda x, w: cross_entropy(x @ w.t(), targets, **options), (x, weight), grad.double(), torch.float64
    )
    assert [t.dtype for t in found] == [torch.float32, dtype, dtype]
    assert_near(found[0], exact[0], dtype=dtype, scale=2)
    for actual, expected in zip(found[1:], exact[1:], strict=True):
        assert_near(actual, expected, scale=8)


def test_small_probabilities_of_many_rows_survive_float16():
    """1e-6 / 4096 is no float16; the mean is divided after the products."""
    x, weight, targets = torch.ones(4096, 1).half(), torch.zeros(3, 1).half(), torch.zeros(4096, dtype=torch.int64)
    weight[0] = 12.0
    found = gradients(lambda x, w: linear_cross_entropy(x, w, targets), (x, weight), torch.tensor(2.0**12))
    p = 1 / (2 + math.exp(12))
    torch.testing.assert_close(found[2][1].double(), torch.tensor([p * 2**12]).double(), rtol=0.01, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_head_stored_as_inputs_by_outputs(reduction):
    x, weight, targets = tensors((2, 5), 7, 4)
    stored = weight.t().contiguous().requires_grad_()
    loss = linear_cross_entropy(x, stored.t(), targets, chunk_rows=3, reduction=reduction)
    (grad,) = torch.autograd.grad(loss.sum(), stored)
    assert grad.is_contiguous()
    expected = gradients(lambda w: cross_entropy(x @ w, targets, reduction="sum"), (stored,), torch.tensor(1.0))[1]
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


def test_large_logits_stay_finite():
    logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, -3e4, -3e4]])
    targets = torch.tensor([0, 2])
    torch.testing.assert_close(cross_entropy(logits, targets, reduction="none"), torch.tensor([0.0, math.log(3)]))
    x = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = linear_cross_entropy(x, logits[:1].t().contiguous(), targets[:1].expand(2), softcap=30.0)
    assert loss.isfinite() and torch.autograd.grad(loss, x)[0].isfinite().all()


def test_a_row_that_does_not_count_may_hold_anything():
    logits = torch.tensor([[1.0, 2.0], [math.inf, 0.0]], dtype=torch.float64)
    targets = torch.tensor([1, IGNORED])
    loss = cross_entropy(logits, targets, target_weights=[1.0, 1.0])
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1], targets[:1]))


def test_no_target_at_all_is_nan_as_in_torch():
    x, weight, targets = tensors((3,), 5, 2)
    ignored = torch.full_like(targets, IGNORED)
    assert linear_cross_entropy(x, weight, ignored).isnan() and cross_entropy(x @ weight.t(), ignored).isnan()
    assert linear_cross_entropy(x, weight, ignored, reduction="sum") == 0
    for options in ({}, {"z_loss": 0.1, "softcap": 2.0}):
        for function in (linear_cross_entropy, linear_cross_entropy_reference):
            leaves = [t.clone().requires_grad_() for t in (x, weight)]
            for grad in torch.autograd.grad(function(*leaves, ignored, **options), leaves):
                assert not grad.count_nonzero()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_no_rows(reduction):
    x, weight, targets = torch.zeros(0, 4, requires_grad=True), torch.randn(5, 4), torch.zeros(0, dtype=torch.int64)
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction)
    assert loss.shape == ((0,) if reduction == "none" else ()) and loss.sum() == 0
    assert torch.autograd.grad(loss.sum(), x)[0].shape == (0, 4)


@pytest.mark.parametrize("needed", ["x", "weight"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_only_the_gradient_that_is_needed(needed, reduction):
    x, weight, targets = tensors((5,), 7, 4)
    tensor = {"x": x, "weight": weight}[needed].requires_grad_()
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction).sum()
    loss.backward(retain_graph=True)
    first = tensor.grad.clone()
    loss.backward()  # again: what was kept is not spoilt
    torch.testing.assert_close(tensor.grad, 2 * first)
    other = weight if needed == "x" else x
    assert other.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cap", [[], [15.0], [23.0, 5.0, 7.5]])
def test_no_tensor_holds_more_than_a_chunk_of_logits(cap, dtype):
    from gpt_kernels.ops.linear_cross_entropy import losses_in_chunks

    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t))
            return out

    x, weight, targets = tensors((96,), 300, 4, dtype)
    with Sizes():
        losses_in_chunks(x, weight, targets[:, None], torch.ones(1), cap, IGNORED, 0.0, 8, True, True)
    assert max(sizes) == 8 * 300 > weight.numel() > x.numel()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_log_sum_exp_tells_the_z_loss(reduction):
    x, weight, targets = tensors((2, 5), 7, 4)
    x.requires_grad_()
    for rows in (x[:, :0], x):  # without rows the reference runs
        y = targets[:, : rows.shape[1]]
        loss, lse = linear_cross_entropy_and_lse(rows, weight, y, z_loss=0.1, reduction=reduction, softcap=2.0)
        assert loss.requires_grad and not lse.requires_grad
        torch.testing.assert_close(lse, softcap(rows @ weight.t(), 2.0).logsumexp(-1).detach())
        plain = linear_cross_entropy(rows, weight, y, reduction="sum", softcap=2.0)
        torch.testing.assert_close(loss.sum() - 0.1 * lse[y != IGNORED].square().sum(), plain)


@pytest.mark.parametrize(("N", "V"), [(1, 10), (1024, 50304), (4096, 50304), (5000, 2**26), (10**6, 100)])
def test_chunks_are_about_equal_and_hold_as_many_logits_as_they_may(N, V):
    rows = rows_per_chunk(N, torch.empty(V, 1, device="meta"))
    count = -(-N // rows)
    assert rows % 64 == 0 and (rows == 64 or (rows * V <= CHUNK_ELEMENTS["cpu"] and rows <= CPU_ROWS))
    assert N - (count - 1) * rows > rows - 64 * count  # of the last one
    assert (
        count == 1
        or rows == 64
        or (rows + 64 * count) * max(V, CHUNK_ELEMENTS["cpu"] // CPU_ROWS) > CHUNK_ELEMENTS["cpu"] // 2
    )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_is_refused(reduction):
    x, weight, targets = tensors((5,), 7, 4)
    loss = linear_cross_entropy(x.requires_grad_(), weight, targets, reduction=reduction).sum()
    with pytest.raises(RuntimeError, match="linear_cross_entropy is differentiable once"):
        torch.autograd.grad(loss, x, create_graph=True)
    torch.autograd.grad(loss, x)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_backward_inside_autocast_is_the_same(reduction):
    x, weight, targets = tensors((5,), 7, 4, torch.float32)
    loss = linear_cross_entropy(x.requires_grad_(), weight.requires_grad_(), targets, reduction=reduction).sum()
    outside = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(loss, (x, weight))
    assert all(torch.equal(*pair) for pair in zip(outside, inside, strict=True))


def test_autocast_casts_as_for_a_linear_map():
    x, weight, targets = tensors((5,), 7, 4, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(x.requires_grad_(), weight, targets)
        expected = cross_entropy(F.linear(x, weight), targets)
    torch.testing.assert_close(loss, expected, rtol=TOLERANCE[torch.float32], atol=0)
    assert torch.autograd.grad(loss, x)[0].dtype == torch.float32


@pytest.mark.parametrize("options", [CASES[0], CASES[5], CASES[7]])
def test_compiles_to_one_graph(options):
    x, weight, targets = tensors((2, 5), 7, 4)
    weights = torch.tensor(options.get("target_weights", [1.0]))
    options = {**options, "target_weights": weights}
    grad = torch.ones(targets.shape if options.get("reduction") == "none" else (), dtype=torch.float64)

    def step(x, w):
        return linear_cross_entropy(x * 2, w, targets, **options) + cross_entropy(x @ w.t(), targets, **options)

    found = gradients(torch.compile(step, backend="aot_eager", fullgraph=True), (x, weight), grad)
    for actual, expected in zip(found, gradients(step, (x, weight), grad), strict=True):
        torch.testing.assert_close(actual, expected)


def test_operators_are_registered_right():
    from gpt_kernels.ops.linear_cross_entropy import linear_cross_entropy_chunks

    x, weight, targets = tensors((5,), 7, 4, torch.bfloat16)
    arguments = (x, weight, targets[:, None], torch.ones(1), [3.0], IGNORED, 0.1, 2)
    for needs in ((True, True), (True, False), (False, True), (False, False)):
        check_operator(linear_cross_entropy_chunks, *arguments, *needs)
    check_operator(linear_cross_entropy_chunks, *arguments, True, True, torch.ones(5))


def test_softcaps():
    logits = torch.tensor([-1e4, -5.0, 0.0, 5.0, 1e4])
    torch.testing.assert_close(softcap(logits, SigmoidCap())[2].item(), 15.1974, rtol=1e-5, atol=0)
    assert softcap(logits, SigmoidCap())[[0, 4]].tolist() == [0.0, 23.0]
    assert softcap(logits, 15.0)[[0, 2, 4]].tolist() == [-15.0, 0.0, 15.0]
    assert softcap(logits, 0.0) is logits
    assert softcap(logits.bfloat16(), 15.0).dtype == torch.float32


def test_backends():
    x, weight, _ = tensors((5,), 7, 4, torch.float32)
    assert backend_of(x, weight) == "chunked" and cross_entropy_backend(x) == "torch"
    assert backend_of(x[:0], weight) == "torch"

    class Subclass(torch.Tensor):
        pass

    assert backend_of(x.as_subclass(Subclass), weight) == "torch"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(4, dtype=torch.int64)}, r"targets must be \(..., T\) .* got \(4,\), expected \(5,\)"),
        ({"targets": torch.zeros(5)}, "targets must be integers, got torch.float32"),
        ({"weight": torch.zeros(7, 3)}, r"weight must be \(V, 4\)"),
        ({"weight": torch.zeros(7, 4).double()}, "one dtype"),
        ({"softcap": -1.0}, "softcap must be 0"),
        ({"softcap": SigmoidCap(width=0.0)}, "positive cap and width"),
        ({"z_loss": -1.0}, "z_loss is a weight"),
        ({"reduction": "max"}, "reduction must be"),
        ({"chunk_rows": 0}, "chunk_rows must be at least 1"),
        ({"target_weights": []}, "at least one weight"),
        ({"target_weights": torch.ones(2, 2)}, "at least one weight"),
        ({"target_weights": torch.ones(2, requires_grad=True)}, "are constants"),
        ({"extra_targets": torch.zeros(5, dtype=torch.int64)}, "last of at least two target_weights, got 1"),
        ({"extra_targets": torch.zeros(5), "target_weights": [1, 1]}, "must be integers of the shape of targets"),
        ({"extra_targets": torch.full((5,), 7), "target_weights": [1, 1]}, "targets must be from 0 to 6"),
    ],
)
def test_arguments_that_contradict_each_other(change, message):
    x, weight, targets = tensors((5,), 7, 4, torch.float32)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**{"x": x, "weight": weight, "targets": targets} | change)
