"""Attention: the manual backend against loops in float64, SDPA against manual, and the edges of the arguments."""

import itertools
import math
import sys
import types

import pytest
import torch

from gpt_kernels import MissingBackendError, attention, attention_backend, attention_mask

# (B, H, G, T, S, K): odd sizes, grouped and multi-query heads, decoding, prefixes
SHAPES = [(2, 4, 4, 7, 7, 8), (1, 6, 2, 5, 5, 3), (3, 3, 1, 1, 9, 4), (2, 4, 2, 3, 11, 5), (1, 1, 1, 1, 1, 1)]
OPTIONS = [
    {},
    {"causal": False},
    {"window": 1},
    {"window": 3},
    {"window": 100},
    {"softcap": 2.0},
    {"scale": 0.3, "window": 2, "softcap": 5.0},
]


def tensors(shape, dtype=torch.float64):
    B, H, G, T, S, K = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = ((B, H, T, K), (B, G, S, K), (B, G, S, K))
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def by_loops(q, k, v, *, causal=True, window=None, softcap=0.0, scale=None, mask=None):
    """One query at a time, only the keys it may see."""
    (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                here = S - T + t
                last = here if causal else S - 1
                first = 0 if window is None else max(0, here - window + 1)
                seen = [s for s in range(first, last + 1) if mask is None or mask[b, 0, t, s]]
                if not seen:
                    continue
                g = h // (H // G)
                score = k[b, g, seen] @ q[b, h, t] * (1 / math.sqrt(K) if scale is None else scale)
                if softcap:
                    score = softcap * torch.tanh(score / softcap)
                out[b, h, t] = score.softmax(0) @ v[b, g, seen]
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_manual_is_the_definition(shape, options):
    q, k, v = tensors(shape)
    out = attention(q, k, v, backend="manual", **options)
    torch.testing.assert_close(out, by_loops(q, k, v, **options), atol=1e-13, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [o for o in OPTIONS if "softcap" not in o])
def test_sdpa_agrees_with_manual_in_output_and_gradients(shape, options):
    results = []
    for backend in ("manual", "sdpa"):
        leaves = [x.requires_grad_() for x in tensors(shape)]
        out = attention(*leaves, backend=backend, **options)
        out.square().sum().backward()
        results.append([out, *(x.grad for x in leaves)])
    for manual, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, manual, atol=1e-12, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "manual"])
def test_mask_is_taken_together_with_causal_and_a_blind_query_gives_zeros(backend):
    shape = (2, 4, 2, 5, 5, 4)
    q, k, v = (x.requires_grad_() for x in tensors(shape))
    mask = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[0, 0, 2] = False
    out = attention(q, k, v, mask=mask, backend=backend)
    torch.testing.assert_close(out, by_loops(q, k, v, mask=mask), atol=1e-13, rtol=0)
    assert out[0, :, 2].abs().max() == 0
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_gradients_by_finite_differences():
    leaves = [x.requires_grad_() for x in tensors((1, 2, 1, 3, 4, 2))]
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, window=2, softcap=3.0, backend="manual"), leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["sdpa", "manual"])
def test_half_precision_stays_close_to_float64(dtype, backend):
    q, k, v = tensors((2, 4, 2, 33, 33, 16))
    out = attention(q.to(dtype), k.to(dtype), v.to(dtype), backend=backend)
    assert out.dtype == dtype
    rounded = [x.to(dtype).double() for x in (q, k, v)]
    torch.testing.assert_close(out.double(), by_loops(*rounded), atol=3e-2, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "manual"])
def test_layouts(backend):
    """Heads cut from one projection, rows that all share their keys, every second channel."""
    exact = [x.requires_grad_() for x in tensors((2, 4, 2, 5, 5, 6))]
    expected = attention(*exact, window=3, backend=backend)
    grad = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for view in (
        lambda x: x.detach().transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.detach().repeat_interleave(2, -1)[..., ::2],
        lambda x: x.detach().mT.contiguous().mT,
    ):
        views = [view(x).requires_grad_() for x in exact]
        out = attention(*views, window=3, backend=backend)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        found = torch.autograd.grad(out, views, grad)
        wanted = torch.autograd.grad(expected, exact, grad, retain_graph=True)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    q, k, v = (x.detach() for x in exact)
    shared, copied = ((k[:1].expand_as(k), v[:1].expand_as(v)), (k[:1].repeat(2, 1, 1, 1), v[:1].repeat(2, 1, 1, 1)))
    torch.testing.assert_close(attention(q, *shared, backend=backend), attention(q, *copied, backend=backend))


@pytest.mark.parametrize("backend", ["sdpa", "manual"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_scores_choose_one_key(dtype, backend):
    """Scores of thousands: all weight on the largest, exactly, and gradients stay finite."""
    q = 60 * torch.eye(8, dtype=dtype).view(1, 1, 8, 8)
    v = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    q, k, v = (x.clone().requires_grad_() for x in (q, q, v))
    out = attention(q, k, v, causal=False, backend=backend)
    assert torch.equal(out, v)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("backend", ["auto", "sdpa", "manual"])
@pytest.mark.parametrize("shape", [(0, 4, 2, 5, 5, 8), (2, 4, 2, 0, 5, 8), (2, 4, 2, 0, 0, 8)])
def test_nothing_in_nothing_out(shape, backend):
    q, k, v = (x.requires_grad_() for x in tensors(shape))
    out = attention(q, k, v, backend=backend)
    assert out.shape == q.shape
    assert [g.count_nonzero() for g in torch.autograd.grad(out.sum(), (q, k, v))] == [0, 0, 0]


def test_dropout_drops_weights_and_keeps_their_mean():
    q = k = torch.zeros(1, 1, 64, 4)
    v = torch.ones(1, 1, 64, 4)
    torch.manual_seed(0)
    for backend in ("sdpa", "manual"):
        out = attention(q, k, v, causal=False, dropout=0.5, backend=backend)
        assert abs(out.mean() - 1) < 0.1
        assert out.std() > 0.05


def test_window_counts_the_token_itself():
    mask = attention_mask(4, 4, window=2)
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert attention_mask(2, 4, window=2).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert attention_mask(1, 4) is None


def test_backend_is_chosen_from_the_arguments():
    q, k, _ = tensors(SHAPES[0])
    assert attention_backend(q, k) == "sdpa"
    assert attention_backend(q, k, softcap=1.0) == "manual"
    assert attention_backend(q, k, backend="manual") == "manual"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "nope"}, "unknown attention backend 'nope'; choose one of auto, sdpa, manual"),
        ({"backend": "sdpa", "softcap": 1.0}, "has no softcap"),
        ({"window": 0}, "at least 1"),
        ({"window": 2, "causal": False}, "needs causal"),
        ({"softcap": -1.0}, "positive"),
    ],
)
def test_contradicting_arguments_are_refused(options, message):
    q, k, v = tensors(SHAPES[0])
    with pytest.raises(ValueError, match=message):
        attention(q, k, v, **options)


def test_head_counts_that_do_not_divide_are_refused():
    q, k, v = tensors((1, 4, 3, 2, 2, 2))
    with pytest.raises(ValueError, match="multiple of key/value heads, got 4 and 3"):
        attention(q, k, v)


@pytest.mark.parametrize("backend", ["flash_attn_2", "flash_attn_3", "flash_attn_4"])
def test_a_missing_flash_backend_is_named(backend, monkeypatch):
    for name in ("flash_attn", "flash_attn_interface", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, None)
    q, k, v = tensors(SHAPES[0])
    with pytest.raises(MissingBackendError, match=f"'{backend}' needs the module"):
        attention(q, k, v, backend=backend)


def test_flash_gets_its_own_layout_and_window(monkeypatch):
    """A stand-in with flash-attn's published signature, computed by a mask made from its definition."""

    def flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap):
        T, S = q.shape[1], k.shape[1]
        offset = torch.arange(S) - torch.arange(S - T, S).unsqueeze(1)
        left, right = window_size
        seen = (offset >= -left if left >= 0 else True) & (offset <= (0 if causal else max(right, S)))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return attention(q, k, v, causal=False, mask=seen, scale=softmax_scale, softcap=softcap).transpose(1, 2)

    fake = types.ModuleType("flash_attn")
    fake.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    q, k, v = tensors((2, 4, 2, 6, 9, 4))
    for options in ({"window": 3}, {"softcap": 2.0, "scale": 0.7, "window": 1}):
        out = attention(q, k, v, backend="flash_attn_2", **options)
        torch.testing.assert_close(out, by_loops(q, k, v, **options), atol=1e-13, rtol=0)


PACKED = [0, 3, 4, 4, 11, 13, 13, 13]  # documents of 3, 1, 0, 7, 2 tokens, and what fills the rest


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
@pytest.mark.parametrize("options", [{}, {"window": 2}, {"window": 5, "scale": 0.4}, {"causal": False}])
def test_packed_documents_do_not_see_each_other(backend, options):
    q, k, v = tensors((1, 4, 2, 13, 13, 3))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    ends = torch.tensor(PACKED, dtype=torch.int32)
    out = attention(q, k, v, cu_seqlens=ends, backend=backend, **options)
    alone = [by_loops(*(x[:, :, a:b] for x in inputs), **options) for a, b in itertools.pairwise(PACKED) if a < b]
    torch.testing.assert_close(out, torch.cat(alone, 2), atol=1e-13, rtol=0)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = [torch.autograd.grad((y * weights).sum(), inputs) for y in (out, torch.cat(alone, 2))]
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


def test_packed_documents_with_a_softcap():
    q, k, v = tensors((1, 4, 2, 13, 13, 3))
    out = attention(q, k, v, cu_seqlens=torch.tensor(PACKED, dtype=torch.int32), softcap=2.0)
    torch.testing.assert_close(out[:, :, 4:11], by_loops(*(x[:, :, 4:11] for x in (q, k, v)), softcap=2.0))


def test_packed_documents_compile_to_one_graph():
    q, k, v = (x.float() for x in tensors((1, 4, 2, 13, 13, 3)))
    ends = torch.tensor(PACKED, dtype=torch.int32)
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v, cu_seqlens=ends), attention(q, k, v, cu_seqlens=ends))


@pytest.mark.parametrize("ends", [[0, 3], [1, 13], [0, 7, 5, 13], [0, 14]])
def test_document_boundaries_that_do_not_fit_the_row_are_refused(ends):
    q, k, v = tensors((1, 4, 2, 13, 13, 3))
    with pytest.raises(ValueError, match="must rise from 0 to the 13 tokens"):
        attention(q, k, v, cu_seqlens=torch.tensor(ends, dtype=torch.int32))


@pytest.mark.parametrize(("shape", "mask"), [((2, 1, 1, 4, 4, 2), None), ((1, 1, 1, 4, 5, 2), None), (None, True)])
def test_document_boundaries_need_one_row_and_no_mask(shape, mask):
    q, k, v = tensors(shape or (1, 1, 1, 4, 4, 2))
    mask = torch.ones(4, 4, dtype=torch.bool) if mask else None
    with pytest.raises(ValueError, match=r"cu_seqlens needs one row"):
        attention(q, k, v, mask=mask, cu_seqlens=torch.tensor([0, 4], dtype=torch.int32))


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float16, 120.0), (torch.bfloat16, 3.0)])
def test_scores_of_half_precision_are_float32(dtype, factor):
    """120 · 120 · 64 leaves float16, and bfloat16 has 8 bits: the products must not be rounded before the softmax."""
    q, k, v = tensors((1, 2, 2, 6, 6, 64), torch.float32)
    x = [(factor * q).to(dtype), (factor * k).to(dtype), v.to(dtype)]
    exact = attention(*(t.double() for t in x), backend="manual")
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            out = attention(*x, backend="manual").double()
        assert (out - exact).abs().max() < 0.02


def test_autocast_decides_the_dtype():
    q, k, v = tensors((1, 4, 2, 6, 6, 16), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for backend in ("sdpa", "manual"):
            assert attention(q.bfloat16(), k.bfloat16(), v, backend=backend).dtype == torch.bfloat16


def test_no_tokens_at_all():
    q, k, v = tensors((1, 4, 2, 0, 0, 8))
    ends = torch.zeros(2, dtype=torch.int32)
    assert attention(q, k, v, cu_seqlens=ends).shape == q.shape


def test_values_of_another_width(monkeypatch):
    import gpt_kernels.ops.attention as op

    monkeypatch.setattr(op, "_is_ampere", lambda x: True)
    q, k, v = tensors((1, 4, 2, 6, 6, 16), torch.bfloat16)
    wide = torch.cat([v, v], -1)
    torch.testing.assert_close(
        attention(q, k, wide, window=2)[..., 16:], attention(q, k, v, window=2, backend="sdpa"), atol=2e-3, rtol=0.02
    )
