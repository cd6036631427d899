"""What a user gets wrong is a ValueError that says what was got, what is expected, and often what to do."""

import pytest
import torch

import gpt_kernels as k

x, whole = torch.ones, torch.int64
q = x(1, 2, 4, 8)
targets = torch.tensor([0, 1, 2])
table = x(4, 4)


def ends(*values, dtype=torch.int32):
    return torch.tensor(values, dtype=dtype)


BAD = {
    "rms_norm: weight": (lambda: k.rms_norm(x(2, 4), x(3)), r"weight of rms_norm must be \(4,\).*got \(3,\)"),
    "rms_norm: one number": (lambda: k.rms_norm(torch.tensor(1.0)), "at least one dimension"),
    "rms_norm: integers": (lambda: k.rms_norm(x(2, 4, dtype=whole)), "float dtype, got torch.int64; convert"),
    "layer_norm: bias": (lambda: k.layer_norm(x(2, 4), x(4), x(1)), r"bias of layer_norm must be \(4,\).*got \(1,\)"),
    "layer_norm: integers": (lambda: k.layer_norm(x(2, 4, dtype=whole)), "float dtype, got torch.int64"),
    "rotary: odd": (lambda: k.apply_rotary(x(1, 1, 4, 5), table, table), "even head dimension"),
    "rotary: wide table": (lambda: k.apply_rotary(x(1, 1, 4, 6), table, table), "at most K / 2 columns"),
    "rotary: tokens": (lambda: k.apply_rotary(x(1, 1, 3, 8), table, table), r"rows broadcast.*cut as cos\[:T\]"),
    "rotary: sin": (lambda: k.apply_rotary(x(1, 1, 4, 8), table, table[:, :2]), "must have one shape"),
    "rotary: style": (lambda: k.apply_rotary(q, table, table, style="neox"), "unknown rotary style 'neox'"),
    "rotary: integers": (lambda: k.apply_rotary(q.long(), table, table), "float dtype"),
    "rotary_table: odd": (lambda: k.rotary_table(4, 3), "even head dimension of at least 2, got 3"),
    "rotary_table: theta": (lambda: k.rotary_table(4, 8, theta=0.0), "theta must be positive, got 0.0"),
    "rotary_table: count": (lambda: k.rotary_table(-1, 8), "0 or more, got -1"),
    "relu2_mlp: shapes": (lambda: k.relu2_mlp(x(2, 3), x(4, 2), x(4, 3)), r"got \(2, 3\), \(4, 2\) and \(4, 3\)"),
    "relu2_mlp: dtypes": (lambda: k.relu2_mlp(x(2, 3), x(4, 3).half(), x(4, 3)), "one dtype, got torch.float32, tor"),
    "relu2_mlp: integers": (lambda: k.relu2_mlp(*[x(3, 3, dtype=whole)] * 3), "float dtype"),
    "swiglu: shapes": (lambda: k.swiglu(x(2, 3), x(2, 4)), r"one shape and dtype, got \(2, 3\)"),
    "swiglu: integers": (lambda: k.swiglu(*[x(3, dtype=whole)] * 2), "float dtype"),
    "linear: weight": (lambda: k.linear(x(2, 3), x(3, 4)), r"must be \(O, 3\) for x \(2, 3\), got \(3, 4\).*weight.t"),
    "linear: bias": (lambda: k.linear(x(2, 3), x(4, 3), x(3)), r"bias of linear must be \(4,\), got \(3,\)"),
    "linear: dtypes": (lambda: k.linear(x(2, 3), x(4, 3).double()), "one dtype"),
    "fp8_linear: bias": (lambda: k.fp8_linear(x(2, 3), x(4, 3), x(3)), r"bias of fp8_linear must be \(4,\)"),
    "fp8_linear: integers": (lambda: k.fp8_linear(*[x(3, 3, dtype=whole)] * 2, backend="emulated"), "float dtype"),
    "quantize: dtype": (lambda: k.quantize(x(3), 1.0, torch.int8), "dtype must be one of torch.float8_e4m3fn"),
    "quantize: scale": (lambda: k.quantize(x(3), 0.0), "a scale must be positive, got 0.0"),
    "transpose_copy: vector": (lambda: k.transpose_copy(x(3)), r"needs a matrix \(..., M, N\), got \(3,\)"),
    "transpose_add: shapes": (lambda: k.transpose_add(x(3, 4), x(3, 4)), r"y \(..., N, M\)"),
    "softcap: negative": (lambda: k.softcap(x(3), -1.0), "softcap must be 0"),
    "cross_entropy: range": (
        lambda: k.cross_entropy(x(3, 2), targets),
        r"from 0 to 1, or -100 to be ignored, got 2 \(1 of 3 are out of range\)",
    ),
    "cross_entropy: negative": (lambda: k.cross_entropy(x(3, 4), targets - 1), "got -1"),
    "cross_entropy: another ignore_index": (
        lambda: k.cross_entropy(x(3, 4), targets - 100, ignore_index=-1),
        r"or -1 to be ignored, got -100 \(3 of 3",
    ),
    "cross_entropy: integers": (lambda: k.cross_entropy(x(3, 4, dtype=whole), targets), "logits of a float dtype"),
    "cross_entropy: targets": (lambda: k.cross_entropy(x(3, 4), targets[:2]), r"got \(2,\), expected \(3,\)"),
    "cross_entropy: one number": (lambda: k.cross_entropy(x(4), targets[0]), "expected at least one dimension"),
    "linear_cross_entropy: range": (lambda: k.linear_cross_entropy(x(3, 4), x(2, 4), targets), "got 2"),
    "linear_cross_entropy: x": (lambda: k.linear_cross_entropy(x(4), x(2, 4), targets), r"x\[None\]"),
    "fp8_linear_cross_entropy: range": (lambda: k.fp8_linear_cross_entropy(x(3, 4), x(2, 4), targets), "got 2"),
    "softcapped: cap": (lambda: k.softcapped_cross_entropy(x(3, 4), targets, softcap=-2.0), "softcap must be 0"),
    "softcapped: lse": (
        lambda: k.softcapped_cross_entropy_backward(x(3), x(1), x(3, 4), targets),
        r"grad and lse must have the shape of targets \(3,\), got \(3,\) and \(1,\)",
    ),
    "softcapped: dtype": (
        lambda: k.softcapped_cross_entropy_backward(x(3), x(3), x(3, 4), targets, grad_dtype=torch.int8),
        "grad_dtype must be a float dtype, got torch.int8",
    ),
    "attention: window": (lambda: k.attention(q, q, q, window=0), "at least 1 key, got window=0"),
    "attention: softcap": (lambda: k.attention(q, q, q, softcap=-1.0), "softcap must be 0"),
    "attention: three dimensions": (lambda: k.attention(q[0], q[0], q[0]), r"q \(B, H, T, K\).*transpose\(1, 2\)"),
    "attention: head dimension": (lambda: k.attention(q, q[..., :6], q), r"got \(1, 2, 4, 8\) and \(1, 2, 4, 6\)"),
    "attention: rows": (lambda: k.attention(q.expand(2, -1, -1, -1), q, q), r"got \(2, 2, 4, 8\)"),
    "attention: values": (lambda: k.attention(q, q, q[:, :, :3]), r"v must be \(B, G, S, K\).*got \(1, 2, 3, 8\)"),
    "attention: dtypes": (lambda: k.attention(q, q.double(), q), "one dtype"),
    "attention: integers": (lambda: k.attention(*[q.long()] * 3), "float dtype"),
    "attention: float mask": (lambda: k.attention(q, q, q, mask=x(4, 4)), "mask must be bool.*got torch.float32"),
    "attention: small mask": (lambda: k.attention(q, q, q, mask=x(3, 3).bool()), r"broadcast to \(..., 4, 4\)"),
    "attention: dropout": (lambda: k.attention(q, q, q, dropout=1.5), "from 0 .off. to 1, got 1.5"),
    "cu_seqlens: end": (lambda: k.attention(q, q, q, cu_seqlens=ends(0, 3)), "rise from 0 to the 4 tokens"),
    "cu_seqlens: start": (lambda: k.attention(q, q, q, cu_seqlens=ends(1, 4), softcap=2.0), "rise from 0"),
    "cu_seqlens: order": (lambda: k.attention(q, q, q, cu_seqlens=ends(0, 3, 2, 4)), "rise from 0"),
    "cu_seqlens: floats": (lambda: k.attention(q, q, q, cu_seqlens=ends(0, 4, dtype=None).float()), r"int32.*float32"),
    "cu_seqlens: dimensions": (lambda: k.attention(q, q, q, cu_seqlens=ends(0, 4)[None]), r"got \(1, 2\)"),
    "document_mask": (lambda: k.document_mask(ends(0, 3), 4), "rise from 0 to the 4 tokens"),
    "attention_mask": (lambda: k.attention_mask(4, 4, window=0), "at least 1 key"),
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_a_value_error_that_helps(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_allowed_still_is():
    """The neighbours of what is refused."""
    k.apply_rotary(q, table[:, :2], table[:, :2])  # fewer columns: the rest is not turned
    k.apply_rotary(q, x(1, 1, 4, 4), x(1, 1, 4, 4))
    k.attention(q, q, q, mask=x(1, 4).bool(), window=1)
    k.attention(q, q, q, cu_seqlens=ends(0, 0, 4, 4))  # documents may be empty
    k.cross_entropy(x(3, 4), torch.tensor([0, -100, 3]))
    with torch.autocast("cpu", torch.bfloat16):  # gives products one dtype
        assert k.linear(x(2, 3), x(4, 3).bfloat16()).dtype == torch.bfloat16
        assert k.relu2_mlp(x(2, 3), x(4, 3).bfloat16(), x(4, 3)).dtype == torch.bfloat16
        assert k.attention(q, q.bfloat16(), q).dtype == torch.bfloat16
