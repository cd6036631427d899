"""Rotary positions: rotations by the right angle, equal in both styles, dependent only on relative offset."""

import cmath

import pytest
import torch

from gpt_kernels import apply_rotary, rotary_table

STYLES = ["interleaved", "half"]


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_table_holds_the_angles_of_the_paper():
    cos, sin = rotary_table(5, 6, theta=100.0, dtype=torch.float64)
    assert cos.shape == sin.shape == (5, 3)
    for p in range(5):
        for i in range(3):
            turn = cmath.exp(1j * p * 100.0 ** (-2 * i / 6))
            assert cos[p, i].item() == pytest.approx(turn.real, abs=1e-14)
            assert sin[p, i].item() == pytest.approx(turn.imag, abs=1e-14)


def test_table_is_exact_at_large_positions():
    position = 1_000_003
    cos, _ = rotary_table(torch.tensor([position]), 4, theta=10_000.0)
    assert cos[0].tolist() == pytest.approx([cmath.cos(position).real, cmath.cos(position / 100).real], abs=1e-6)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 2), (3, 2, 7, 10)])
def test_pairs_are_turned_by_their_angle(style, shape):
    T, K = shape[-2:]
    x, (cos, sin) = random(*shape), rotary_table(T, K, dtype=torch.float64)
    out = apply_rotary(x, cos, sin, style=style)
    for t in range(T):
        for i in range(K // 2):
            a, b = (2 * i, 2 * i + 1) if style == "interleaved" else (i, i + K // 2)
            turn = torch.complex(cos[t, i], sin[t, i])
            expected = torch.complex(x[..., t, a], x[..., t, b]) * turn
            torch.testing.assert_close(out[..., t, a], expected.real)
            torch.testing.assert_close(out[..., t, b], expected.imag)


@pytest.mark.parametrize("style", STYLES)
def test_length_is_kept_and_scores_depend_on_the_offset_only(style):
    q, k = random(1, 2, 1, 8), random(1, 2, 1, 8) + 1

    def score(p, s):
        turned = [
            apply_rotary(x, *rotary_table(torch.tensor([at]), 8, dtype=torch.float64), style=style)
            for x, at in ((q, p), (k, s))
        ]
        torch.testing.assert_close(turned[0].norm(), q.norm())
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(3, 1), score(103, 101))
    assert abs(score(3, 1) - score(3, 2)) > 1e-3


@pytest.mark.parametrize("style", STYLES)
def test_gradients_and_positions_per_sequence(style):
    positions = torch.tensor([[0, 1, 2], [5, 6, 9]])
    cos, sin = (t.unsqueeze(1) for t in rotary_table(positions, 4, dtype=torch.float64))
    x = random(2, 3, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: apply_rotary(x, cos, sin, style=style), x)
    for b in range(2):
        alone = apply_rotary(x[b], *rotary_table(positions[b], 4, dtype=torch.float64), style=style)
        torch.testing.assert_close(apply_rotary(x, cos, sin, style=style)[b], alone)


def test_every_memory_layout_gives_the_same_interleaved_result():
    cos, sin = rotary_table(5, 4, dtype=torch.float64)
    x = random(2, 3, 5, 4)
    expected = apply_rotary(x, cos, sin)
    odd = torch.empty(2, 3, 5, 9, dtype=torch.float64)[..., 1::2]  # stride 2, odd offset: no complex view
    layouts = [x.transpose(1, 2).contiguous().transpose(1, 2), odd.copy_(x)]
    for layout in layouts:
        torch.testing.assert_close(apply_rotary(layout, cos, sin), expected)


@pytest.mark.parametrize("style", STYLES)
def test_half_precision_is_rotated_in_float32(style):
    x = random(2, 2, 6, 8).bfloat16()
    cos, sin = rotary_table(6, 8)
    out = apply_rotary(x, cos, sin, style=style)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, apply_rotary(x.float(), cos, sin, style=style).bfloat16())


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="even head dimension of at least 2, got 3"):
        rotary_table(2, 3)
    with pytest.raises(ValueError, match="unknown rotary style 'neox'; choose one of interleaved, half"):
        apply_rotary(random(1, 1, 2, 4), *rotary_table(2, 4), style="neox")
