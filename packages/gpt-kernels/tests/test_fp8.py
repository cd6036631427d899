"""Float8: casts, scales, the linear map and its gradients, the module, the speedrun's head."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gpt_kernels as k
from gpt_kernels import FP8Linear, FP8Scaling, convert_to_fp8, fp8_linear, fp8_linear_backend
from gpt_kernels.ops.fp8 import (
    E4M3,
    E5M2,
    delayed_scale,
    dequantize,
    dynamic_scale,
    has_seen,
    kernels_write,
    largest_magnitude,
    record_amax,
)
from gpt_kernels.ops.scaled_product import emulated_product, scaled_product
from gpt_kernels.testing import check_operator, gradients, random

LARGEST = {E4M3: 448.0, E5M2: 57344.0}
MANTISSA = {E4M3: 3, E5M2: 2}
SMALLEST_NORMAL = {E4M3: 2.0**-6, E5M2: 2.0**-14}


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_casts_saturate_and_round_to_nearest(dtype, source):
    inf, largest = float("inf"), LARGEST[dtype]
    x = torch.tensor([inf, -inf, float("nan"), 6e4, -6e4, 1.98, 0.0], dtype=source)
    edge = largest if dtype == E4M3 else 57344.0
    expected = [largest, -largest, float("nan"), edge, -edge, 2.0, 0.0]
    torch.testing.assert_close(k.saturating_cast(x, dtype).float(), torch.tensor(expected), equal_nan=True)
    assert k.saturating_cast(x, torch.float16).dtype == torch.float16


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("scale", [1.0, 0.013])
def test_error_of_quantising_is_half_a_unit_of_the_mantissa(dtype, scale):
    x = random(20000, scale=5) * torch.logspace(-6, 2, 20000)
    error = (dequantize(k.quantize(x, scale, dtype), scale) - x).abs()
    in_range = x.abs() <= LARGEST[dtype] * scale
    normal = x.abs() >= SMALLEST_NORMAL[dtype] * scale
    bound = 2.0 ** -(MANTISSA[dtype] + 1) * 1.0001
    assert (error <= bound * x.abs())[in_range & normal].all()
    assert (error <= bound * SMALLEST_NORMAL[dtype] * scale)[~normal].all()
    assert (error > 0.85 * bound * x.abs())[in_range & normal].any()  # the bound is reached


def test_dynamic_scale_fits_the_largest():
    x = torch.tensor([1.0, -7.0, 3.0], dtype=torch.bfloat16, requires_grad=True)
    for dtype in (E4M3, E5M2):
        scale = dynamic_scale(x, dtype)
        assert scale.dtype == torch.float32 and not scale.requires_grad
        assert dequantize(k.quantize(x, scale, dtype), scale).min() == -7
        assert k.quantize(x, dynamic_scale(x, dtype, headroom=2.0), dtype).float().min() == -LARGEST[dtype] / 2
    for nothing in (torch.zeros(3), torch.zeros(0)):
        assert k.quantize(nothing, dynamic_scale(nothing)).float().count_nonzero() == 0


@pytest.mark.gpu
def test_a_number_and_a_tensor_are_the_same_scale():
    x = random(1000, 1000)
    same = k.quantize(x, 0.07).view(torch.uint8) == k.quantize(x, torch.tensor(0.07, device=x.device)).view(torch.uint8)
    assert same.all()


@pytest.mark.parametrize("scale", [torch.tensor(0.5, dtype=torch.float64), torch.tensor([0.5])])
def test_a_scale_is_one_float32_number(scale):
    x = random(3, 5)
    assert torch.equal(k.quantize(x, scale).float(), k.quantize(x, 0.5).float())
    with pytest.raises(ValueError, match="one number for the whole tensor"):
        k.quantize(x, scale.expand(5))


def test_delayed_scale_remembers():
    history = torch.zeros(3)
    for largest in (2.0, -8.0, 1.0, 4.0):
        record_amax(history, largest_magnitude(torch.tensor([largest, 0.5], dtype=torch.bfloat16)))
    assert history.tolist() == [4.0, 1.0, 8.0]
    torch.testing.assert_close(delayed_scale(history, headroom=1.8), torch.tensor(8 * 1.8 / 448))
    record_amax(history, torch.tensor(1.0))
    torch.testing.assert_close(delayed_scale(history), torch.tensor(4 / 448))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_is_not_remembered(bad):
    history = torch.tensor([4.0, bad, 1.0])  # kept by an earlier version
    torch.testing.assert_close(delayed_scale(history), torch.tensor(4 / 448))
    record_amax(history, torch.tensor(bad))
    assert history[:2].tolist() == [0.0, 4.0]
    assert not has_seen(torch.tensor([bad, 0.0])) and has_seen(history)


@pytest.mark.parametrize(("minor", "kernel"), [(0, False), (6, False), (9, True)])
def test_e4m3_is_for_torch_where_the_gpu_has_no_float8(monkeypatch, minor, kernel):
    properties = SimpleNamespace(major=8, minor=minor)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    device = torch.device("cuda")
    assert kernels_write(E4M3, device) is kernel and kernels_write(E5M2, device)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_one_bad_input_does_not_spoil_the_calls_after_it(bad):
    torch.manual_seed(0)
    module = FP8Linear(48, 64, scaling=FP8Scaling(x="delayed"), backend="emulated").to(random(1).device)
    x = random(16, 48)
    x[0, 0] = bad
    module(x)  # without a history
    x[0, 0] = 1.0
    expected = module(x)
    x[0, 0] = bad
    module(x)
    x[0, 0] = 1.0
    assert expected.isfinite().all()
    torch.testing.assert_close(module(x), expected)


# --- The product ----------------------------------------------------------------------------------------------------


def factors(M=32, K=48, N=64, a_dtype=E4M3):
    a, b = random(M, K).to(a_dtype), random(N, K, seed=1).to(E4M3).t()
    return a, b, *(torch.tensor(s, device=a.device) for s in (0.25, 2.0))


@pytest.mark.parametrize("a_dtype", [E4M3, E5M2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_is_its_definition(dtype, a_dtype):
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no float8 units")
    arguments = factors(a_dtype=a_dtype)
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(scaled_product(*arguments, dtype), emulated_product(*arguments, dtype), **tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": 20}, r"multiples of 16, got \{'inner': 20\}"),
        ({"N": 24}, r"multiples of 16, got \{'columns': 24\}"),
        ({"b": torch.zeros(48, 64).to(E4M3)}, "stored by rows and the right one by columns"),
        ({"a": torch.zeros(48, 32).to(E4M3).t()}, "stored by rows and the right one by columns"),
        ({"a": torch.zeros(32, 48)}, "must be float8"),
        ({"a": torch.zeros(32, 48).to(E5M2), "b": torch.zeros(64, 48).to(E5M2).t()}, "not both float8_e5m2"),
    ],
)
def test_what_cuda_would_refuse_is_refused_everywhere(change, message):
    a, b, *scales = factors(**{name: size for name, size in change.items() if isinstance(size, int)})
    with pytest.raises(ValueError, match=message):
        scaled_product(change.get("a", a), change.get("b", b), *scales, torch.float32)


# --- The linear map -------------------------------------------------------------------------------------------------


def arguments(N=32, inputs=48, outputs=64, dtype=torch.bfloat16):
    x, weight = random(2, N // 2, inputs, dtype=dtype), random(outputs, inputs, dtype=dtype, seed=1, scale=0.1)
    return x, weight, random(outputs, dtype=dtype, seed=2), random(2, N // 2, outputs, dtype=dtype, seed=3)


def relative(actual, exact):
    return ((actual.double() - exact.double()).norm() / exact.double().norm()).item()


def by_hand(x, weight, bias, grad, x_scale, weight_scale, grad_scale):
    """[output, gradients] from rounded matrices multiplied in float64."""
    rounded = [
        dequantize(k.quantize(t, scale, dtype), scale).double()
        for t, scale, dtype in ((x, x_scale, E4M3), (weight, weight_scale, E4M3), (grad, grad_scale, E5M2))
    ]
    x_q, w_q, g_q = (t.flatten(0, -2) for t in rounded)
    return [
        (x_q @ w_q.t()).view(grad.shape) + bias.double(),
        (g_q @ w_q).view(x.shape),
        g_q.t() @ x_q,
        grad.double().flatten(0, 1).sum(0),
    ]


@pytest.mark.parametrize("backend", ["emulated", "scaled_mm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scales", [(None, None, None), (0.01, 0.001, 1e-4), (torch.tensor(0.02), None, 1e-4)])
def test_linear_is_the_product_of_rounded_matrices(scales, dtype, backend):
    x, weight, bias, grad = arguments(dtype=dtype)
    x_scale, weight_scale, grad_scale = scales
    found = gradients(
        lambda x, w, b: fp8_linear(
            x, w, b, x_scale=x_scale, weight_scale=weight_scale, grad_scale=grad_scale, backend=backend
        ),
        (x, weight, bias),
        grad,
    )
    expected = by_hand(
        x,
        weight,
        bias,
        grad,
        dynamic_scale(x) if x_scale is None else x_scale,
        dynamic_scale(weight) if weight_scale is None else weight_scale,
        dynamic_scale(grad, E5M2) if grad_scale is None else grad_scale,
    )
    assert all(t.dtype == dtype for t in found)
    for actual, exact in zip(found, expected, strict=True):
        assert relative(actual, exact) < (1e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("backend", ["emulated", "scaled_mm"])
def test_error_against_the_exact_product(backend):
    """Rounding errors of e4m3, at most 2⁻⁴ each and 2⁻⁴/√3 a factor at random, do not correlate: they do not grow with
    the length of the sum. e5m2 has twice that."""
    x, weight, bias, grad = arguments(128, 256, 128)
    function = lambda x, w, b: fp8_linear(x, w, b, backend=backend)
    found = gradients(function, (x, weight, bias), grad)
    exact = gradients(F.linear, (x, weight, bias), grad, torch.float64)
    errors = [relative(a, b) for a, b in zip(found, exact, strict=True)]
    assert 0.01 < errors[0] < 2**-4 * (2 / 3) ** 0.5
    assert errors[1] < 2**-4 * (5 / 3) ** 0.5 and errors[2] < 2**-4 * (5 / 3) ** 0.5
    assert errors[3] < 1e-2  # the bias takes no part in it


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 48, 64), (32, 40, 64)])
def test_sizes_that_float8_cannot_take(shape):
    N, inputs, outputs = shape
    x, weight = random(N, inputs, dtype=torch.bfloat16), random(outputs, inputs, dtype=torch.bfloat16, seed=1)
    assert fp8_linear_backend(x, weight) == "linear"
    torch.testing.assert_close(fp8_linear(x, weight), F.linear(x, weight), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="multiples of 16"):
        fp8_linear(x, weight, backend="scaled_mm")
    assert relative(fp8_linear(x, weight, backend="emulated"), F.linear(x, weight)) < 0.1


def test_layouts_and_no_rows():
    x, weight, _, grad = arguments()
    expected = gradients(lambda x, w: fp8_linear(x, w, backend="emulated"), (x, weight), grad)
    stored = weight.t().contiguous().t()
    views = (x.transpose(0, 1).contiguous().transpose(0, 1), stored)
    found = gradients(lambda x, w: fp8_linear(x, w, backend="scaled_mm"), views, grad)
    for actual, exact in zip(found, expected, strict=True):
        assert relative(actual, exact) < 1e-2
    assert fp8_linear(x[:0], weight).shape == (0, 16, 64)
    assert fp8_linear(x[:0], weight, backend="emulated").shape == (0, 16, 64)


@pytest.mark.parametrize("needed", [0, 1])
def test_only_the_gradient_that_is_needed(needed):
    tensors = list(arguments()[:2])
    tensors[needed].requires_grad_()
    fp8_linear(*tensors, backend="scaled_mm").sum().backward()
    assert tensors[needed].grad is not None and tensors[1 - needed].grad is None


@pytest.mark.parametrize("backend", ["emulated", "scaled_mm"])
def test_a_second_derivative_is_refused(backend):
    x, weight, _, _ = arguments()
    y = fp8_linear(x.requires_grad_(), weight, backend=backend).sum()
    with pytest.raises(RuntimeError, match="fp8_linear is differentiable once"):
        torch.autograd.grad(y, x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_auto_takes_float8_for_what_its_product_can_return(monkeypatch, dtype):
    """As on a GPU with float8 units; _scaled_mm returns at most float32 there."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    x, weight, _, _ = arguments(dtype=dtype)
    assert fp8_linear_backend(x, weight) == ("linear" if dtype == torch.float64 else "scaled_mm")


def test_values_beyond_a_static_scale_saturate():
    x, weight, _, _ = arguments()
    y = fp8_linear(x * 1e30, weight, x_scale=1.0, backend="scaled_mm")
    torch.testing.assert_close(y, fp8_linear(x.sign() * 448, weight, x_scale=1.0, backend="scaled_mm"))
    assert y.isfinite().all()


def test_autocast():
    x, weight, bias, _ = arguments(dtype=torch.float32)
    with torch.autocast(x.device.type, torch.bfloat16):
        for backend in ("auto", "scaled_mm", "emulated"):
            assert fp8_linear(x, weight, bias, backend=backend).dtype == torch.bfloat16
        inside = emulated_product(*factors(), torch.float32)
    assert torch.equal(inside, emulated_product(*factors(), torch.float32))


@pytest.mark.parametrize("backend", ["emulated", "scaled_mm"])
def test_compiles_to_one_graph(backend):
    x, weight, bias, grad = arguments()
    step = lambda x, w, b: fp8_linear(x * 2, w, b, grad_scale=1e-4, backend=backend) + 1
    found = gradients(torch.compile(step, backend="aot_eager", fullgraph=True), (x, weight, bias), grad)
    for actual, expected in zip(found, gradients(step, (x, weight, bias), grad), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "fp4"}, "unknown backend 'fp4'"),
        ({"x_scale": 0.0}, "must be positive"),
        ({"x_scale": torch.ones(2)}, "one number for the whole tensor"),
        ({"grad_dtype": torch.float16}, "grad_dtype must be one of"),
        ({"weight": torch.zeros(64, 47)}, r"weight of fp8_linear must be \(O, 48\)"),
    ],
)
def test_arguments_that_contradict_each_other(options, message):
    x, weight, _, _ = arguments()
    with pytest.raises(ValueError, match=message):
        fp8_linear(x, **{"weight": weight, "backend": "emulated"} | options)


# --- The module -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(32, 48)
        self.layers = nn.ModuleList([nn.Linear(48, 48, bias=False), nn.Linear(48, 20)])
        self.again = self.first

    def forward(self, x):
        return self.layers[1](self.layers[0](self.again(x)))


def test_converter_keeps_parameters_and_names():
    torch.manual_seed(0)
    model = Tied()
    before, state = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    x = random(16, 32).cpu()
    expected = model(x)
    assert convert_to_fp8(model) == ["first", "again", "layers.0"]
    assert isinstance(model.first, FP8Linear) and model.again is model.first and type(model.layers[1]) is nn.Linear
    assert all(p is before[name] for name, p in model.named_parameters()) and model.state_dict().keys() == state.keys()
    torch.testing.assert_close(model(x), expected)  # auto: float32 on a CPU
    with pytest.raises(ValueError, match="nothing was converted"):
        convert_to_fp8(model)
    assert convert_to_fp8(model, lambda name, linear: name == "layers.1", backend="emulated") == ["layers.1"]
    assert 1e-4 < relative(model(x), expected) < 0.1
    with pytest.raises(ValueError, match="from_linear"):
        convert_to_fp8(nn.Linear(16, 16))


def test_delayed_scales_of_the_module():
    scaling = FP8Scaling(x="delayed", weight="delayed", grad=1e-4, history=2, x_headroom=2.0)
    torch.manual_seed(0)
    module = FP8Linear(48, 64, scaling=scaling, backend="emulated").to(random(1).device)
    x, *_ = arguments(dtype=torch.float32)
    first = module(x)
    weight = module.weight.detach()
    torch.testing.assert_close(first, fp8_linear(x, weight, module.bias, backend="emulated"))  # no history: dynamic
    torch.testing.assert_close(module.x_amax, torch.stack([x.abs().max(), x.new_zeros(())]))
    second = module(3 * x)
    old = x.abs().max() * 2 / 448
    expected = fp8_linear(3 * x, weight, module.bias, x_scale=old, backend="emulated")
    torch.testing.assert_close(second, expected)  # saturates beyond twice the old maximum
    assert (k.quantize(3 * x, old).float().abs() == 448).sum() > 1
    module.eval()
    history = module.x_amax.clone()
    module(x)
    assert torch.equal(module.x_amax, history)
    restored = FP8Linear(48, 64, scaling=scaling, backend="emulated").to(x.device)
    restored.load_state_dict(module.state_dict())
    assert torch.equal(restored(x), module(x))


def test_module_compiles_to_one_graph_and_keeps_its_history():
    torch.manual_seed(0)
    module = FP8Linear(48, 64, scaling=FP8Scaling(x="delayed"), backend="emulated").to(random(1).device)
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for scale in (1.0, 2.0):
        x = random(4, 48, scale=scale)
        results = [m(x) for m in (compiled, twin)]
        torch.testing.assert_close(*results)
        grads = [
            torch.autograd.grad(y.square().sum(), m.weight)[0] for y, m in zip(results, (module, twin), strict=True)
        ]
        torch.testing.assert_close(*grads)
    assert module.x_amax.count_nonzero() == 2 and torch.equal(module.x_amax, twin.x_amax)


def test_module_trains_as_the_full_precision_one():
    torch.manual_seed(0)
    exact = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    rounded = copy.deepcopy(exact)
    convert_to_fp8(rounded, backend="scaled_mm", scaling=FP8Scaling(x="delayed"))
    x, y = torch.randn(64, 32), torch.randn(64, 16)
    losses = []
    for model in (exact, rounded):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(60):
            loss = F.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.9 and abs(losses[1] - losses[0]) < 0.03


@pytest.mark.parametrize("options", [{"x": 0.0}, {"weight": "late"}, {"grad": "delayed"}, {"history": 0}])
def test_scalings_that_are_none(options):
    with pytest.raises(ValueError):
        FP8Scaling(**options)


# --- The speedrun's head --------------------------------------------------------------------------------------------

SCALES = k.HeadScales()


def head(N=48, inputs=64, V=160):
    x = F.rms_norm(random(N, inputs), (inputs,)).bfloat16()
    stored = random(inputs, V, seed=1, scale=0.3).bfloat16()  # (in, out), as the speedrun keeps it
    targets = torch.randint(V, (N,), generator=torch.Generator().manual_seed(0)).to(x.device)
    return x, stored, targets


def test_the_scales_of_the_speedrun():
    assert [f"{s:.7g}" for s in SCALES] == ["0.2232143", "0.003571429", "0.001674107"]
    assert k.quantize(torch.tensor([1.6, 1.7, -3.0]), SCALES.weight).float().tolist() == [448.0, 448.0, -448.0]


@pytest.mark.parametrize("backend", ["emulated", "scaled_mm"])
@pytest.mark.parametrize("rows", [None, 16])
def test_head_is_the_speedruns(rows, backend):
    """Step by step as §1.10 and §6 of its specification have it, with logits held whole and grad_scale in grad_s."""
    x, stored, targets = head()
    weights, grad_scale = torch.tensor([1.0, 0.5, 0.25], device=x.device), 1 / 8
    x_q, w_q = k.quantize(x, SCALES.x), k.quantize(stored, SCALES.weight)
    logits = ((x_q.float() @ w_q.float()) * (SCALES.x * SCALES.weight)).bfloat16()
    losses, lse = k.softcapped_cross_entropy(logits, targets, target_weights=weights)
    grad_s = SCALES.grad * grad_scale
    g_q = k.softcapped_cross_entropy_backward(
        torch.full_like(losses, grad_scale),
        lse,
        logits,
        targets,
        target_weights=weights,
        grad_dtype=E5M2,
        grad_scale=grad_s,
    )
    grad_x = (g_q.float() @ w_q.float().t()) * (grad_s * SCALES.weight)
    grad_stored = (x_q.float().t() @ g_q.float()) * (grad_s * SCALES.x)
    found = gradients(
        lambda x, w: k.fp8_linear_cross_entropy(
            x, w.t(), targets, target_weights=weights, chunk_rows=rows, backend=backend
        ),
        (x, stored),
        torch.tensor(grad_scale, device=x.device),
    )
    assert abs(found[0].item() / losses.sum().item() - 1) < 1e-5
    assert relative(found[1], grad_x) < 5e-3 and relative(found[2], grad_stored) < 5e-3
    assert found[1].dtype == found[2].dtype == torch.bfloat16


@pytest.mark.parametrize("backend", ["emulated", "scaled_mm"])
def test_head_is_near_the_exact_one(backend):
    x, stored, targets = head()
    options = {"softcap": k.SigmoidCap(), "reduction": "mean"}
    found = gradients(
        lambda x, w: k.fp8_linear_cross_entropy(x, w.t(), targets, reduction="mean", backend=backend),
        (x, stored),
        torch.tensor(1.0, device=x.device),
    )
    exact = gradients(
        lambda x, w: k.cross_entropy(x @ w, targets, **options), (x, stored), torch.tensor(1.0).to(x), torch.float64
    )
    assert abs(found[0].item() / exact[0].item() - 1) < 0.01
    # e5m2 errs by an eighth at most, half a mantissa's step over √3 at random; the head's factors add theirs
    assert relative(found[1], exact[1]) < 0.1 and relative(found[2], exact[2]) < 0.1
    on_cpu = k.fp8_linear_cross_entropy(x, stored.t(), targets, reduction="mean")
    if not x.is_cuda:
        torch.testing.assert_close(on_cpu, k.linear_cross_entropy(x, stored.t(), targets, **options))


def test_head_without_gradients_and_its_errors():
    x, stored, targets = head()
    with torch.no_grad():
        loss = k.fp8_linear_cross_entropy(x, stored.t(), targets, backend="emulated")
    assert not loss.requires_grad and loss.isfinite()
    with pytest.raises(ValueError, match="no float8 form"):
        k.fp8_linear_cross_entropy(x, stored.t(), targets, reduction="none", backend="emulated")
    with pytest.raises(ValueError, match="scales must be positive"):
        k.fp8_linear_cross_entropy(x, stored.t(), targets, scales=k.HeadScales(x=0.0), backend="emulated")
    with pytest.raises(ValueError, match="multiples of 16"):
        k.fp8_linear_cross_entropy(x, stored.t(), targets, chunk_rows=5, backend="scaled_mm")


def test_heads_operator_is_registered_right():
    from gpt_kernels.ops.fp8_linear_cross_entropy import fp8_linear_cross_entropy_chunks

    x, stored, targets = head(16, 16, 32)
    for needs in ((True, True), (False, False)):
        check_operator(
            fp8_linear_cross_entropy_chunks,
            *(x, stored.t().contiguous(), targets[:, None], torch.ones(1, device=x.device), [23.0, 5.0, 7.5], -100),
            *(0.0, 16, *needs, list(SCALES), True),
        )
