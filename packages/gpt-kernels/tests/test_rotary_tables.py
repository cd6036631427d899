"""Rotary tables of the speedrun: its figures, its paired layers, its sense of rotation."""

import math

import pytest
import torch

from gpt_kernels import (
    apply_rotary,
    frequency_table,
    half_truncated_frequencies,
    paired_table,
    yarn_frequencies,
    yarn_scale,
)

BLOCK = 128


def test_half_truncated_frequencies():
    frequencies = half_truncated_frequencies(128)
    assert frequencies.shape == (32,)
    expected = [1, 0.1671662, 0.02794453, 4.671381e-3, 9.765625e-4]
    assert frequencies[[0, 8, 16, 24, 31]].tolist() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="divisible by 4, at least 8, got 6"):
        half_truncated_frequencies(6)


def test_figures_of_the_speedrun_when_windows_grow():
    frequencies, scale = half_truncated_frequencies(128), 0.1
    for old, new, expected_scale, expected in (
        (3, 7, 0.116945957, [1, 0.1000423, 1.234084e-2, 2.002020e-3, 4.185268e-4]),
        (7, 11, 0.127517524, [1, 7.923148e-2, 7.963258e-3, 1.274013e-3, 2.663352e-4]),
        (11, 13, 0.131777988, [1, 7.363022e-2, 6.769144e-3, 1.078011e-3, 2.253606e-4]),
    ):
        frequencies = yarn_frequencies(frequencies, old * BLOCK, new * BLOCK)
        scale = yarn_scale(scale, old * BLOCK, new * BLOCK)
        assert frequencies[[0, 8, 16, 24, 31]].tolist() == pytest.approx(expected, rel=1e-6)
        assert scale == pytest.approx(expected_scale, rel=1e-8)
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        yarn_frequencies(frequencies, 0, 3)
    with pytest.raises(ValueError, match="at least 1, got 3 and 0"):
        yarn_scale(0.1, 3, 0)


def test_rotation_is_the_one_of_the_speedrun():
    """Even channels c x_even + s x_odd, odd ones c x_odd − s x_even; the second half of the head stays."""
    x = torch.randn(1, 2, 7, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frequencies = half_truncated_frequencies(16)
    out = apply_rotary(x, *frequency_table(7, frequencies, clockwise=True, dtype=torch.float64))
    for t in range(7):
        for m, frequency in enumerate(frequencies.tolist()):
            c, s = math.cos(t * frequency), math.sin(t * frequency)
            even, odd = x[..., t, 2 * m], x[..., t, 2 * m + 1]
            torch.testing.assert_close(out[..., t, 2 * m], c * even + s * odd)
            torch.testing.assert_close(out[..., t, 2 * m + 1], c * odd - s * even)
    assert torch.equal(out[..., 8:], x[..., 8:])


def test_angles_are_exact_at_large_positions_and_tables_narrow_when_asked():
    position, frequencies = 1_000_003, torch.tensor([1.0, 0.01])
    cos, sin = frequency_table(torch.tensor([[position]]), frequencies)
    assert cos.shape == (1, 1, 2) and cos.dtype == torch.float32
    assert cos[0, 0, 0].item() == pytest.approx(math.cos(position), abs=1e-6)
    assert sin[0, 0, 0].item() == pytest.approx(math.sin(position), abs=1e-6)
    assert frequency_table(3, frequencies, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_paired_heads_stand_at_even_and_odd_positions():
    """The speedrun's paired layers: (T, H / 2, 2 K) turned at once, then seen as 2 T positions."""
    T, K = 5, 16
    frequencies = half_truncated_frequencies(K)
    x_HTK = torch.randn(3, T, 2 * K, generator=torch.Generator().manual_seed(0))
    out = apply_rotary(x_HTK, *paired_table(T, frequencies, K))
    apart = apply_rotary(x_HTK.view(3, 2 * T, K), *frequency_table(2 * T, frequencies))
    torch.testing.assert_close(out, apart.view(3, T, 2 * K))
    with pytest.raises(ValueError, match="4 frequencies turn 8 channels, a head has 6"):
        paired_table(T, frequencies, 6)
