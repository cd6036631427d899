"""The Triton cross-entropy against the reference in float64: losses, gradients, 8-bit gradients, compilation."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from gpt_kernels import (
    SigmoidCap,
    cross_entropy,
    cross_entropy_backend,
    fp8_linear_cross_entropy,
    linear_cross_entropy,
    linear_cross_entropy_backend,
    linear_cross_entropy_reference,
    softcapped_cross_entropy,
    softcapped_cross_entropy_backward,
)
from gpt_kernels.ops import cross_entropy_rows as rows
from gpt_kernels.testing import (
    DTYPES,
    assert_near,
    check_operator,
    compile_for,
    gradients,
    layouts,
    random,
)
from gpt_kernels.triton import cross_entropy as kernels

IGNORED = -100
SPEEDRUN = SigmoidCap()
CAPS = [0.0, 15.0, 60.0, SPEEDRUN, SigmoidCap(100.0, 0.0, 20.0)]  # the 60 and the 100 need a running maximum
SHAPES = [(1, 1), (3, 5), (5, 128), (4, 4099), (2, 9000)]  # on and off the blocks, several of them
GRAD_SCALE = 0.75 / 448
LARGEST = 57344.0


def arguments(N, V, dtype=torch.float32, weights=(1.0, 0.5, 0.25), scale=4.0, **options):
    logits = random(N, V, dtype=dtype, scale=scale)
    targets = torch.randint(V, (N,), generator=torch.Generator().manual_seed(N)).to(logits.device)
    if N > 1:
        targets[N // 2] = IGNORED
    options = {"softcap": SPEEDRUN, **options}
    return logits, rows.row_loss(logits.shape, logits, targets, weights, **options)


def assert_agree(logits, loss, slack=0.0):
    grad = random(len(logits), seed=3)
    found = gradients(lambda x: kernels.cross_entropy_losses(x, *loss)[0], (logits,), grad)
    exact = gradients(lambda x: rows.losses_and_lse_reference(x, loss)[0], (logits,), grad, torch.float64)
    assert_near(found[0], exact[0], scale=2)
    if slack:
        torch.testing.assert_close(found[1].double(), exact[1], rtol=1e-5, atol=slack)
    else:
        assert_near(found[1], exact[1], scale=4)
    assert found[0].dtype == torch.float32 and found[1].dtype == logits.dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients(shape, dtype):
    assert_agree(*arguments(*shape, dtype))


@pytest.mark.parametrize("z_loss", [0.0, 0.05])
@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.0, 0.3, 2.0)])
@pytest.mark.parametrize("cap", CAPS)
def test_options(cap, weights, z_loss):
    options = {"weights": weights, "softcap": cap, "z_loss": z_loss}
    assert_agree(*arguments(3, 300, **options))
    assert_agree(*arguments(2, 4099, **options))


def test_layouts():
    logits, loss = arguments(4, 70, torch.bfloat16)
    for _, view in layouts(logits):
        assert_agree(view, loss)
    assert_agree(logits, loss._replace(targets_NK=loss.targets_NK.t().contiguous().t()))
    assert_agree(logits[:, :33], loss._replace(targets_NK=loss.targets_NK.clamp_max(32)))  # a padded vocabulary
    for weights in (torch.tensor([[1.0, 9.0], [0.5, 9.0], [0.25, 9.0]])[:, 0], torch.tensor([0.5]).expand(3)):
        assert_agree(logits, loss._replace(weights_K=weights.to(logits.device)))


def test_layouts_of_what_the_gradient_is_given():
    logits, loss = arguments(6, 40)
    grad = random(6)
    _, lse = kernels.cross_entropy_losses(logits, *loss)
    expected = rows.gradient_reference(grad, lse, logits, loss, torch.float32)
    every_second = (torch.stack((t, torch.full_like(t, 7.0)), 1)[:, 0] for t in (grad, lse))
    assert_near(kernels.cross_entropy_gradient(*every_second, logits, *loss, torch.float32, 1.0), expected.double())


@pytest.mark.parametrize("cap", [2.0, 40.0, 1e3, 1e6])
def test_a_cap_far_above_the_logits_does_not_round_them(cap):
    logits, loss = arguments(5, 300, softcap=cap)
    losses, _ = kernels.cross_entropy_losses(logits, *loss)
    exact, _ = rows.losses_and_lse_reference(logits.double(), loss)
    torch.testing.assert_close(losses.double(), exact, rtol=2e-6, atol=2e-6)


def test_no_rows():
    assert_agree(*arguments(0, 7))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # 1 / (1 + inf) is meant to be 0
def test_large_values_and_masked_logits():
    for scale in (1e4, 1e-4):
        for cap in CAPS:
            logits, loss = arguments(2, 4500, weights=(1.0,), softcap=cap)
            # 1 - tanh² of saturated logits is what cancellation leaves of 1: small, but not exact
            assert_agree(logits * scale, loss, slack=1e-7)
    logits, loss = arguments(2, 4500, weights=(1.0,), softcap=0.0)
    logits[:, :4200] = float("-inf")  # the whole first block
    targets_NK = loss.targets_NK.clamp_min(0) % 200 + 4200
    losses, lse = kernels.cross_entropy_losses(logits, *loss._replace(targets_NK=targets_NK))
    torch.testing.assert_close(lse, logits.logsumexp(-1), rtol=1e-6, atol=0)
    assert losses.isfinite().all()


def test_a_target_out_of_range_is_not_passed_over():
    logits, loss = arguments(4, 70, weights=(1.0,), softcap=0.0)
    loss.targets_NK[1], loss.targets_NK[2] = 70, -1
    losses, _ = kernels.cross_entropy_losses(logits, *loss)
    assert losses.isnan().tolist() == [False, True, True, False]


# --- Assertion 15 of the speedrun's specification -------------------------------------------------------------------


def halves_of(logits, loss, dtype, grad=None):
    """Gradient in `dtype` by the kernel and by the reference, and the exact one in float64."""
    grad = torch.ones(len(logits), device=logits.device) if grad is None else grad
    _, lse = kernels.cross_entropy_losses(logits, *loss)
    kernel = kernels.cross_entropy_gradient(grad, lse, logits, *loss, dtype, GRAD_SCALE)
    reference = rows.gradient_reference(grad, lse, logits, loss, dtype, GRAD_SCALE)
    exact = gradients(lambda x: rows.losses_and_lse_reference(x, loss)[0], (logits,), grad, torch.float64)[1]
    return kernel, reference, exact


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.5, 0.25)])
def test_e5m2_gradients_are_within_an_eighth(weights):
    kernel, reference, exact = halves_of(*arguments(6, 5000, torch.bfloat16, weights), torch.float8_e5m2)
    for q in (kernel, reference):
        assert q.dtype == torch.float8_e5m2
        value = q.double() * GRAD_SCALE
        normal = exact.abs() >= 2.0**-14 * GRAD_SCALE
        assert normal.float().mean() > 0.5  # the bound speaks of most entries
        assert ((value - exact).abs() <= 0.125 * exact.abs())[normal].all()
        assert (value[exact.abs() < 0.999 * 2.0**-17 * GRAD_SCALE] == 0).all()
        assert ((value - exact).abs() <= 1.001 * 2.0**-17 * GRAD_SCALE)[~normal].all()
    assert (kernel.float() != reference.float()).float().mean() < 1e-3  # ties that float32 rounds either way


def test_every_row_of_dz_sums_to_zero():
    """Without a cap dl is dz."""
    logits, loss = arguments(6, 4500, softcap=0.0)
    for gradient in halves_of(logits, loss, torch.float32)[:2]:
        total = (gradient.double() * GRAD_SCALE).sum(1)
        assert total.abs().max() < 2e-6 * loss.weights_K.sum()


def test_only_targets_inside_the_sequence_count():
    logits, loss = arguments(3, 20, softcap=0.0)
    targets_NK = rows.targets_of_rows(torch.tensor([3, 4, 5], device=logits.device), 3, IGNORED)
    dz = halves_of(logits, loss._replace(targets_NK=targets_NK), torch.float32)[0] * GRAD_SCALE
    p = logits.softmax(-1)
    torch.testing.assert_close(dz[2, 5], p[2, 5] - 1)  # one target: S = 1
    torch.testing.assert_close(dz[1, 4], 1.5 * p[1, 4] - 1)
    torch.testing.assert_close(dz[1, 0], 1.5 * p[1, 0])
    torch.testing.assert_close(dz[0, 5], 1.75 * p[0, 5] - 0.25)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float8_e5m2, LARGEST), (torch.float8_e4m3fn, 448.0)])
def test_gradients_beyond_the_range_saturate(dtype, largest):
    logits, loss = arguments(4, 40)
    grad = torch.tensor([1e6, -1e6, 1.0, float("nan")], device=logits.device)
    kernel, reference, _ = halves_of(logits, loss, dtype, grad)
    for q in (kernel.float(), reference.float()):
        assert q[0].max() == largest and q[1].min() == -largest and q[:3].isfinite().all() and q[3].isnan().all()


@pytest.mark.parametrize(("minor", "expected"), [(6, []), (9, [torch.float8_e4m3fn])])
def test_e4m3_is_for_gpus_that_have_it(monkeypatch, minor, expected):
    """The compiler knows no such conversion before sm_89."""
    logits, loss = arguments(4, 40)
    lse, taken, kernel = rows.losses_and_lse_reference(logits, loss)[1], [], kernels.cross_entropy_gradient
    monkeypatch.setattr(kernels, "cross_entropy_gradient", lambda *a: taken.append(a[-2]) or kernel(*a))
    monkeypatch.setattr(rows, "rows_backend", lambda logits: "triton")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=8, minor=minor))
    for dtype in (torch.float8_e5m2, torch.float8_e4m3fn):
        assert rows.gradient(torch.ones_like(lse), lse, logits, loss, dtype).dtype == dtype
    assert taken == [torch.float8_e5m2, *expected]


def test_no_target_at_all_passes_no_gradient():
    logits, loss = arguments(4, 40)
    targets = torch.full((4,), IGNORED, device=logits.device)
    losses, _ = kernels.cross_entropy_losses(
        logits.requires_grad_(), *loss._replace(targets_NK=targets[:, None], weights_K=loss.weights_K[:1])
    )
    mean = rows.reduce_losses(losses, targets, IGNORED, "mean")
    assert mean.isnan() and not torch.autograd.grad(mean, logits)[0].count_nonzero()


def test_public_halves_agree_with_the_whole():
    logits = random(2, 6, 50, dtype=torch.bfloat16)
    targets = torch.randint(50, (2, 6), device=logits.device)
    weights = torch.tensor([1.0, 0.5], device=logits.device)
    losses, lse = softcapped_cross_entropy(logits, targets, target_weights=weights)
    whole = cross_entropy(logits, targets, target_weights=weights, softcap=SPEEDRUN, reduction="none")
    torch.testing.assert_close(losses, whole)
    gradient = softcapped_cross_entropy_backward(
        torch.ones_like(losses), lse, logits, targets, target_weights=weights, grad_scale=0.5
    )
    leaf = logits.clone().requires_grad_()
    cross_entropy(leaf, targets, target_weights=weights, softcap=SPEEDRUN, reduction="sum").backward()
    assert gradient.dtype == torch.bfloat16
    assert_near(gradient * 0.5, leaf.grad, scale=2)
    with pytest.raises(ValueError, match="grad_scale must be positive"):
        softcapped_cross_entropy_backward(losses, lse, logits, targets, grad_scale=0.0)


# --- The head: chunks whose rows the kernels take -------------------------------------------------------------------


def head(dtype, N=40, inputs=16, V=300):
    x, weight = random(N, inputs, dtype=dtype), random(V, inputs, dtype=dtype, seed=1, scale=0.3)
    targets = torch.randint(V, (N,), generator=torch.Generator().manual_seed(0)).to(x.device)
    targets[3] = IGNORED
    return x, weight, targets


@pytest.mark.parametrize(
    ("reduction", "dtype"), [*(("none", dtype) for dtype in DTYPES), ("mean", torch.bfloat16), ("sum", torch.float32)]
)
def test_chunks_by_the_kernels_are_the_definition(monkeypatch, reduction, dtype):
    """On a CPU the kernels run in the interpreter, where the dispatch is told to take them."""
    x, weight, targets = head(dtype, N=10)
    options = {"softcap": SPEEDRUN, "z_loss": 0.01, "target_weights": [1.0, 0.5], "reduction": reduction}
    grad = torch.ones(targets.shape if reduction == "none" else (), device=x.device)
    exact = gradients(
        lambda x, w: linear_cross_entropy_reference(x, w, targets, **options), (x, weight), grad.double(), torch.float64
    )
    calls = []
    gradient = kernels.cross_entropy_gradient
    monkeypatch.setattr(kernels, "cross_entropy_gradient", lambda *a: calls.append(len(a[0])) or gradient(*a))
    monkeypatch.setattr(rows, "rows_backend", lambda logits: "triton")
    found = gradients(lambda x, w: linear_cross_entropy(x, w, targets, chunk_rows=4, **options), (x, weight), grad)
    assert calls == [4, 4, 2]
    assert_near(found[0], exact[0], dtype=dtype, scale=2)
    for actual, expected in zip(found[1:], exact[1:], strict=True):
        assert actual.dtype == dtype
        assert_near(actual, expected, scale=8)


def test_float8_chunks_by_the_kernels_are_those_of_the_definition(monkeypatch):
    x, weight, targets = head(torch.bfloat16, N=32, inputs=32, V=320)
    function = lambda x, w: fp8_linear_cross_entropy(x, w, targets, chunk_rows=16, backend="emulated")
    one = torch.tensor(1.0, device=x.device)
    expected = gradients(function, (x, weight), one)
    monkeypatch.setattr(rows, "rows_backend", lambda logits: "triton")
    for actual, exact in zip(gradients(function, (x, weight), one), expected, strict=True):
        assert (actual.double() - exact.double()).norm() < 0.01 * exact.double().norm()  # ties of e5m2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_head_on_a_gpu(reduction, dtype):
    x, weight, targets = head(dtype, 2500, 768, 50304)
    assert linear_cross_entropy_backend(x, weight) == "chunked+triton"
    options = {"softcap": SPEEDRUN, "reduction": reduction}
    grad = torch.ones(targets.shape if reduction == "none" else (), device=x.device)
    found = gradients(lambda x, w: linear_cross_entropy(x, w, targets, **options), (x, weight), grad)
    exact = gradients(
        lambda x, w: linear_cross_entropy_reference(x, w, targets, **options), (x, weight), grad.double(), torch.float64
    )
    for actual, expected in zip(found, exact, strict=True):
        assert_near(actual, expected, scale=8, dtype=torch.bfloat16)  # float32 products may be TF32


# --- Registration and compilation -----------------------------------------------------------------------------------


def test_operators_are_registered_right():
    logits, loss = arguments(3, 20, z_loss=0.1)
    check_operator(kernels.cross_entropy_losses, logits.requires_grad_(), *loss)
    gradient = (torch.ones_like(logits[:, 0]).detach(), torch.zeros_like(logits[:, 0]).detach(), logits.detach())
    check_operator(kernels.cross_entropy_gradient, *gradient, *loss, torch.float8_e5m2, 0.5)


def test_compiles_to_one_graph():
    logits, loss = arguments(3, 20, torch.bfloat16)
    step = lambda x: kernels.cross_entropy_losses(x * 2, *loss)[0] + 1
    grad = random(3, seed=1)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for actual, expected in zip(gradients(compiled, (logits,), grad), gradients(step, (logits,), grad), strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_log_sum_exp_is_a_constant():
    logits, loss = arguments(3, 20)
    losses, lse = kernels.cross_entropy_losses(logits.requires_grad_(), *loss)
    assert losses.requires_grad and not lse.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize(("form", "bounded"), [(0, False), (1, True), (2, True)])
def test_forward_compiles_for_gpus(sm, form, bounded):
    sizes = {"K": 3, "FORM": form, "BOUNDED": bounded, "BV": kernels.FORWARD_BLOCK}
    tensors = {
        "logits": "*bf16:16",
        "targets": "*i64:16",
        "weights": "*fp32:16",
        "losses": "*fp32:16",
        "lse": "*fp32:16",
    }
    numbers = {"row_stride": "i32:16", "V": "i32:16", "ignore_index": "i32"}
    floats = dict.fromkeys(["cap", "shift", "width", "z_loss"], "fp32")
    name = "gpt_kernels.triton.cross_entropy:forward_kernel"
    made = compile_for(name, tensors | numbers | floats, sizes, sm, num_warps=kernels.FORWARD_WARPS)
    assert made.cubin_bytes and "ld.global.v4" in made.ptx


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sm", "out", "largest"), [(80, "*bf16", 0.0), (80, "*fp8e5", LARGEST), (90, "*bf16", 0.0), (90, "*fp8e5", LARGEST)]
)
def test_gradient_compiles_for_gpus(sm, out, largest):
    sizes = {"K": 3, "FORM": 2, "LARGEST": largest, "BV": kernels.BACKWARD_BLOCK}
    tensors = {"logits": "*bf16:16", "targets": "*i64:16", "weights": "*fp32:16", "grad": "*fp32:16", "lse": "*fp32:16"}
    numbers = {"row_stride": "i32:16", "V": "i32:16", "ignore_index": "i32", "out": f"{out}:16"}
    floats = dict.fromkeys(["cap", "shift", "width", "z_loss", "inverse_scale"], "fp32")
    name = "gpt_kernels.triton.cross_entropy:gradient_kernel"
    made = compile_for(name, tensors | numbers | floats, sizes, sm, num_warps=kernels.BACKWARD_WARPS)
    assert made.cubin_bytes and "ld.global.v4" in made.ptx and "st.global.v" in made.ptx


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cap", CAPS)
def test_on_a_gpu(cap, dtype):
    logits, loss = arguments(3001, 50304, dtype, softcap=cap)
    assert cross_entropy_backend(logits) == "triton"
    assert_agree(logits, loss)
