"""One contract, one table: every backend of attention that runs here agrees with the definition on every case.

varlen and the flash-attn packages need a GPU. Without one, stand-ins with their published signatures and meaning of a
window check what they are given.
"""

import itertools
import sys
import types

import pytest
import torch

from gpt_kernels import attention, attention_backend
from gpt_kernels.testing import kernel_device

DEVICE = kernel_device()
ENDS = [0, 3, 4, 4, 40, 77, 77]  # documents of 3, 1, 0, 36, 37, 0 tokens
SHAPES = {  # (B, H, G, T, S, K)
    "square": (2, 4, 4, 77, 77, 16),
    "grouped heads": (2, 6, 2, 33, 33, 24),
    "one key head": (1, 4, 1, 130, 130, 32),
    "prefix": (2, 4, 2, 9, 40, 16),
    "decoding": (3, 4, 2, 1, 50, 16),
    "packed": (1, 4, 2, 77, 77, 16),
}
OPTIONS = {
    "causal": {},
    "all keys": {"causal": False},
    "window": {"window": 5},
    "window of one": {"window": 1},
    "window beyond the end": {"window": 1000},
    "scale": {"scale": 0.3, "window": 20},
    "softcap": {"softcap": 2.0},
    "softcap and window": {"softcap": 5.0, "window": 7, "scale": 0.5},
    "mask": {"mask": True},
    "softcap and mask": {"mask": True, "softcap": 3.0},
}
CASES = [
    pytest.param(SHAPES[shape], OPTIONS[options], id=f"{shape}, {options}")
    for shape, options in itertools.product(SHAPES, OPTIONS)
    if not (shape == "packed" and "mask" in OPTIONS[options])
]
FLEX_CASES = [  # a CPU traces each for half a second: all options on one shape, two of them on all shapes
    pytest.param(SHAPES[shape], OPTIONS[options], id=f"{shape}, {options}")
    for shape, options in itertools.product(SHAPES, OPTIONS)
    if (DEVICE == "cuda" or shape == "square" or options in ("softcap and window", "mask"))
    and not (shape == "packed" and "mask" in OPTIONS[options])
]
GPU_CASES = CASES if DEVICE == "cuda" else CASES[:1]  # skipped, hundreds would take seconds
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-12}


def case(shape, options, dtype):
    B, H, G, T, S, K = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = ((B, H, T, K), (B, G, S, K), (B, G, S, K))
    tensors = [torch.randn(size, generator=generator).to(DEVICE, dtype).requires_grad_() for size in sizes]
    options = dict(options)
    if options.get("mask"):
        options["mask"] = (torch.rand(B, 1, T, S, generator=generator) < 0.7).to(DEVICE)
        options["mask"][0, 0, 0] = False  # a query that sees nothing
    if shape == SHAPES["packed"]:  # int64 is taken too; the kernels want int32
        options["cu_seqlens"] = torch.tensor(ENDS, dtype=torch.int64, device=DEVICE)
    return tensors, options


def assert_agrees(backend, shape, options, dtype, gradients=True, slack=1.0):
    tensors, options = case(shape, options, dtype)
    try:
        attention_backend(*tensors[:2], **options, backend=backend)
    except ValueError:
        pytest.skip(f"{backend} does not take this case, and says so")
    exact = [x.detach().double().requires_grad_() for x in tensors]
    expected = attention(*exact, **options, backend="manual")
    if not gradients:
        tensors = [x.detach() for x in tensors]
    out = attention(*tensors, **options, backend=backend)
    atol = TOLERANCE[dtype] * slack
    assert out.shape == expected.shape and out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=atol, rtol=atol)
    if gradients:
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        found = torch.autograd.grad((out * weights).sum(), tensors)
        wanted = torch.autograd.grad((expected * weights.double()).sum(), exact)
        for actual, gradient in zip(found, wanted, strict=True):
            size = max(gradient.abs().max().item(), 1.0)
            torch.testing.assert_close(actual.double(), gradient, atol=4 * atol * size, rtol=4 * atol)


@pytest.mark.parametrize(("shape", "options"), CASES)
@pytest.mark.parametrize("backend", ["sdpa", "manual", "banded", "auto"])
def test_backends_of_every_machine(backend, shape, options):
    assert_agrees(backend, shape, options, torch.float32)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("shape", "options"), FLEX_CASES)
def test_flex(shape, options):
    """Forward on a CPU, where it has no backward; see below for CUDA."""
    assert_agrees("flex", shape, options, torch.float32, gradients=DEVICE == "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "options"), GPU_CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["sdpa", "manual", "auto", "varlen", "flex"])
def test_backends_of_a_gpu_in_half_precision(backend, dtype, shape, options):
    assert_agrees(backend, shape, options, dtype, slack=2)


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "options"), GPU_CASES)
@pytest.mark.parametrize("backend", ["flash_attn_2", "flash_attn_3", "flash_attn_4"])
def test_flash_attn_where_it_is_installed(backend, shape, options):
    module = {"flash_attn_2": "flash_attn", "flash_attn_3": "flash_attn_interface", "flash_attn_4": "flash_attn.cute"}
    pytest.importorskip(module[backend])
    assert_agrees(backend, shape, options, torch.bfloat16, slack=2)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"softcap": 4.0}, {"window": 9}])
def test_compiled_on_a_gpu(options):
    tensors, more = case(SHAPES["packed"], options, torch.bfloat16)
    compiled = torch.compile(attention, fullgraph=True)
    expected = attention(*tensors, **more, backend="manual")
    torch.testing.assert_close(compiled(*tensors, **more), expected, atol=3e-2, rtol=3e-2)


# --- Stand-ins ------------------------------------------------------------------------------------------------------


def seen_by_left_and_right(T, S, window_size, causal):
    """flash-attn's window: `left` keys before the query and `right` after it, itself too; -1 is without end."""
    left, right = window_size
    offset = torch.arange(S) - torch.arange(S - T, S).unsqueeze(1)
    right = 0 if causal else right
    return (offset >= -left if left >= 0 else offset > -S - T) & (offset <= right if right >= 0 else offset < S + T)


def varlen_by_definition(q, k, v, ends, window_size, causal, **options):
    """(tokens, heads, channels), document by document."""
    outs = []
    for a, b in itertools.pairwise(ends.tolist()):
        seen = seen_by_left_and_right(b - a, b - a, window_size, causal)
        document = (x[a:b].transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        if b > a:
            outs.append(attention(*document, causal=False, mask=seen, backend="manual", **options)[0].transpose(0, 1))
    return torch.cat(outs)


@pytest.fixture
def fake_varlen(monkeypatch):
    import gpt_kernels.ops.attention_backends.varlen as ours

    calls = []

    def varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa=False):
        assert cu_seq_q is cu_seq_k and max_q == max_k and cu_seq_q.dtype == torch.int32
        assert enable_gqa == (q.shape[1] != k.shape[1])
        calls.append(max_q)
        return varlen_by_definition(q, k, v, cu_seq_q, window_size, False, scale=scale)

    monkeypatch.setattr(ours.torch_varlen, "varlen_attn", varlen_attn)
    return calls


@pytest.mark.skipif(DEVICE == "cuda", reason="the real one runs")
@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize(("shape", "options"), CASES)
def test_what_varlen_is_given(fake_varlen, monkeypatch, shape, options, groups):
    import gpt_kernels.ops.attention_backends.varlen as ours

    monkeypatch.setattr(ours, "TAKES_GROUPS", groups)
    assert_agrees("varlen", shape, options, torch.float64)


@pytest.mark.skipif(DEVICE == "cuda", reason="the real one runs")
def test_a_bound_on_the_length_of_documents_is_handed_on(fake_varlen):
    tensors, options = case(SHAPES["packed"], {}, torch.float64)
    attention(*tensors, **options, backend="varlen", max_seqlen=37)
    attention(*tensors, **options, backend="varlen")
    assert fake_varlen == [37, 77]


@pytest.mark.skipif(DEVICE == "cuda", reason="the real one runs")
@pytest.mark.parametrize(("shape", "options"), CASES)
@pytest.mark.parametrize("backend", ["flash_attn_2", "flash_attn_3", "flash_attn_4"])
def test_what_flash_attn_is_given(monkeypatch, backend, shape, options):
    def flash_attn_func(q, k, v, softmax_scale, causal, window_size, softcap, dropout_p=0.0):
        seen = seen_by_left_and_right(q.shape[1], k.shape[1], window_size, causal)
        heads = (x.transpose(1, 2) for x in (q, k, v))
        out = attention(*heads, causal=False, mask=seen, scale=softmax_scale, softcap=softcap, backend="manual")
        out = out.transpose(1, 2)
        return out if backend == "flash_attn_2" else (out, "the log-sum-exp")

    def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options):
        assert max_seqlen_q == max_seqlen_k == q.shape[0] and cu_seqlens_q is cu_seqlens_k
        assert cu_seqlens_q.dtype == torch.int32
        options.pop("dropout_p", None)
        scale = options.pop("softmax_scale")
        return varlen_by_definition(q, k, v, cu_seqlens_q, scale=scale, **options)

    name = {"flash_attn_2": "flash_attn", "flash_attn_3": "flash_attn_interface", "flash_attn_4": "flash_attn.cute"}
    fake = types.ModuleType(name[backend])
    fake.flash_attn_func, fake.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, name[backend], fake)
    assert_agrees(backend, shape, options, torch.float64)


# --- Which one ------------------------------------------------------------------------------------------------------

HALF, PACKED = torch.bfloat16, {"cu_seqlens": True}
POLICY = [  # on a GPU
    (HALF, {}, "sdpa"),
    (HALF, {"causal": False}, "sdpa"),
    (HALF, {"window": 5}, "varlen"),
    (HALF, {"window": 78}, "sdpa"),  # no window at all
    (HALF, PACKED, "varlen"),
    (HALF, PACKED | {"window": 5}, "varlen"),
    (HALF, PACKED | {"softcap": 2.0}, "flex"),
    (HALF, PACKED | {"dropout": 0.1}, "sdpa"),
    (HALF, PACKED | {"scale": -1.0}, "flex"),
    (HALF, {"softcap": 2.0}, "flex"),
    (HALF, {"softcap": 2.0, "dropout": 0.1}, "manual"),
    (HALF, {"mask": True}, "sdpa"),
    (HALF, {"mask": True, "softcap": 2.0}, "flex"),
    (HALF, {"mask": True, "window": 5}, "sdpa"),
    (torch.float32, {"window": 5}, "flex"),
    (torch.float32, PACKED, "flex"),
    (torch.float64, PACKED, "sdpa"),
    (torch.float64, {"softcap": 2.0}, "manual"),
]


@pytest.mark.parametrize(("dtype", "options", "expected"), POLICY)
def test_policy_on_a_gpu(monkeypatch, dtype, options, expected):
    import gpt_kernels.ops.attention as op

    if DEVICE == "cpu":
        monkeypatch.setattr(op, "_is_ampere", lambda x: True)
    (q, k, _), options = case((1, 4, 2, 78, 78, 16), options, dtype)
    if "cu_seqlens" in options:
        options["cu_seqlens"] = torch.tensor(ENDS, dtype=torch.int32, device=DEVICE)
    assert attention_backend(q, k, **{"window": None} | options) == expected
    options.pop("cu_seqlens", None)
    options.pop("mask", None)
    assert attention_backend(q[:, :, -1:], k, **options) == ("manual" if "softcap" in options else "sdpa")  # decoding


def test_policy_elsewhere():
    (q, k, _), options = case(SHAPES["packed"], {"window": 5}, torch.bfloat16)
    cpu = {name: x.cpu() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    assert attention_backend(q.cpu(), k.cpu(), **cpu) == "sdpa"
    assert attention_backend(q.cpu(), k.cpu(), softcap=2.0) == "manual"


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        ("varlen", {"softcap": 1.0}, "has no softcap"),
        ("varlen", {"mask": True}, "has no mask"),
        ("varlen", {"dropout": 0.1}, "has no dropout"),
        ("varlen", {"scale": 0.0}, "has no scale that is not positive"),
        ("flex", {"dropout": 0.1}, "has no dropout"),
        ("flash_attn_2", {"mask": True}, "has no mask"),
    ],
)
def test_what_a_backend_lacks_is_named(backend, options, message):
    tensors, options = case(SHAPES["square"], options, torch.float32)
    with pytest.raises(ValueError, match=f"'{backend}' {message}"):
        attention(*tensors, **options, backend=backend)


def test_flex_says_that_it_has_no_gradients_on_cpus():
    tensors, _ = case(SHAPES["square"], {}, torch.float32)
    with pytest.raises(ValueError, match="no gradients on CPUs"):
        attention(*(x.cpu() for x in tensors), backend="flex")


def test_flex_is_compiled_anew_for_each_kind_of_call(monkeypatch):
    """As CUDA tensors have it, where torch compiles one function eight times at most."""
    from gpt_kernels.ops.attention_backends import flex

    asked = []
    monkeypatch.setattr(flex, "_compiled", lambda function, kind: asked.append(kind) or function)
    monkeypatch.setattr(flex, "_run", lambda device, kind: flex._compiled(flex._attend, kind))
    for shape, options in ((SHAPES["square"], {}), (SHAPES["square"], {"softcap": 2.0}), (SHAPES["packed"], {})):
        for window in (None, 5):
            tensors, chosen = case(shape, options | {"window": window}, torch.float32)
            attention(*(x.detach() for x in tensors), **chosen, backend="flex")
    assert len(set(asked)) == 6


def test_a_mask_kept_in_inference_mode_trains_later():
    from gpt_kernels.ops.attention_backends import flex

    flex._kept_block_mask.cache_clear()
    with torch.inference_mode():
        kept = flex._kept_block_mask(5, 64, 64, torch.device("cpu"))
    assert not kept.kv_num_blocks.is_inference()


@pytest.mark.slow
def test_flex_compiles_to_one_graph():
    tensors, options = case(SHAPES["packed"], {"softcap": 2.0, "window": 9}, torch.float32)
    tensors = [x.detach() for x in tensors]
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    expected = attention(*tensors, **options, backend="manual")
    torch.testing.assert_close(compiled(*tensors, **options, backend="flex"), expected, atol=1e-5, rtol=1e-5)


# --- Windows on a CPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 31, 33, 64, 129, 200])
@pytest.mark.parametrize(
    "ends", [None, [0, 1, 1, 40, 170, 299, 300], [0, 300]], ids=["rows", "documents", "one document"]
)
def test_banded_over_several_blocks(window, ends):
    """300 is no multiple of a block; windows within one, over several, and where blocks are of 64 queries."""
    generator = torch.Generator().manual_seed(window)
    B = 2 if ends is None else 1
    q, k, v = (torch.randn(B, 2, 300, K, dtype=torch.float64, generator=generator).requires_grad_() for K in (4, 4, 3))
    options = {"window": window, "cu_seqlens": None if ends is None else torch.tensor(ends, dtype=torch.int32)}
    outs = [attention(q, k, v, backend=backend, **options) for backend in ("banded", "manual")]
    torch.testing.assert_close(*outs, atol=1e-12, rtol=0)
    weights = torch.randn(outs[0].shape, dtype=torch.float64, generator=generator)
    found, wanted = (torch.autograd.grad((out * weights).sum(), (q, k, v)) for out in outs)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    with pytest.raises(RuntimeError, match="'banded' is differentiable once"):
        torch.autograd.grad(attention(q, k, v, backend="banded", **options).sum(), q, create_graph=True)


@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (torch.float32, {"window": 96}, "banded"),  # 96 and a block of 32 are half the row
        (torch.float64, {"window": 96}, "banded"),
        (torch.float32, {"window": 97}, "sdpa"),
        (torch.float32, {}, "sdpa"),
        (torch.bfloat16, {"window": 5}, "sdpa"),
        (torch.float32, {"window": 5, "dropout": 0.1}, "sdpa"),
        (torch.float32, {"window": 5, "softcap": 2.0}, "manual"),
        (torch.float32, {"window": 5, "mask": torch.ones(256, 256, dtype=torch.bool)}, "sdpa"),
    ],
)
def test_policy_on_a_cpu(dtype, options, expected):
    q = torch.zeros(1, 2, 256, 4, dtype=dtype)
    assert attention_backend(q, q, **options) == expected
