"""The two scales of metrics.py, against values worked out by hand."""

import math

import pytest

from gpt_eval import bits_per_byte, centered_accuracy


@pytest.mark.parametrize(
    ("accuracy", "baseline", "expected"),
    [(0.25, 0.25, 0.0), (1.0, 0.25, 1.0), (0.625, 0.25, 0.5), (0.0, 0.5, -1.0), (0.3, 0.0, 0.3)],
)
def test_centered_accuracy_puts_chance_at_zero_and_perfection_at_one(accuracy, baseline, expected):
    assert centered_accuracy(accuracy, baseline) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("accuracy", "baseline"), [(0.5, 25.0), (50.0, 0.25), (0.5, 1.0), (math.nan, 0.5)])
def test_percentages_and_nan_are_refused(accuracy, baseline):
    with pytest.raises(ValueError, match="fraction"):
        centered_accuracy(accuracy, baseline)


def test_a_model_that_knows_nothing_needs_eight_bits_per_byte():
    n_bytes = 37
    assert bits_per_byte(n_bytes * math.log(1 / 256), n_bytes) == pytest.approx(8.0, rel=1e-15)


def test_bits_per_byte_does_not_depend_on_the_tokenizer():
    # Four bytes as four tokens of 2 bits or as one token of 8 bits.
    assert bits_per_byte(4 * math.log(1 / 4), 4) == pytest.approx(bits_per_byte(math.log(1 / 256), 4))


@pytest.mark.parametrize(("total", "n_bytes"), [(-1.0, 0), (3.2, 10), (math.nan, 10)])
def test_bits_per_byte_refuses_a_loss_nan_and_no_text(total, n_bytes):
    with pytest.raises(ValueError, match="got"):
        bits_per_byte(total, n_bytes)
