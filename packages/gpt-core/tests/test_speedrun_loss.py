"""The speedrun's loss: several next tokens, prefix tokens, what is reported and what is divided by."""

from types import SimpleNamespace

import pytest
import torch

from gpt_core.models.speedrun import SpeedrunLoss, speedrun_loss
from gpt_core.models.speedrun.prefixes import prefix_table, table_of
from gpt_kernels import SigmoidCap, softcap

T, D, V = 9, 4, 12
WORDS = [b"a", b"ab", b"abc", b"abd", b"b", b"ba", b"abcde", b"c", b"abz", b"zz", b"zzz"]


def case():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, T, D, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(V, D, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.randint(V - 1, (1, T), generator=generator)
    targets[0, 4] = -1
    return x, weight, targets


def by_hand(x, weight, targets, weights, extra=None, extra_weight=0.0):
    """Row by row: Σ_k w_k (LSE − z[target of r + k]) over targets within the row that count."""
    z = softcap(x[0] @ weight.t(), SigmoidCap())
    total = z.new_zeros(())
    for r in range(T):
        wanted = [(w, int(targets[0, r + k])) for k, w in enumerate(weights) if r + k < T]
        if extra is not None and int(targets[0, r]) >= 0:
            wanted.append((extra_weight, int(extra[targets[0, r]])))
        for w, target in wanted:
            if target >= 0:
                total = total + w * (z[r].logsumexp(0) - z[r, target])
    return total


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.5], [1.0, 0.5, 0.25], [1.0] + [0.1] * 11])
def test_sums_and_gradients_of_several_next_tokens(weights):
    x, weight, targets = case()
    loss, cap = speedrun_loss(weights), SigmoidCap()
    expected, plain = by_hand(x, weight, targets, weights), by_hand(x, weight, targets, [1.0])
    fused = loss.of_hidden(x, weight, targets, softcap=cap)
    whole = loss(softcap(x @ weight.t(), cap), targets)
    for sums in (fused, whole):
        torch.testing.assert_close(sums.objective, expected, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(sums.loss, plain.detach(), rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(
            torch.autograd.grad(sums.objective, (x, weight)),
            torch.autograd.grad(expected, (x, weight), retain_graph=True),
            rtol=1e-6,
            atol=1e-7,
        )
        assert not sums.loss.requires_grad
    judged = loss(softcap(x @ weight.t(), cap), targets, accuracy=True)
    torch.testing.assert_close(judged.objective, plain, rtol=1e-7, atol=1e-7)
    assert int(judged.items) == int(loss.count(targets)) == T - 1
    assert int(judged.correct) == int(((x @ weight.t()).argmax(-1) == targets).sum())


def test_the_gradient_is_a_sum_over_the_tokens_of_a_micro_batch():
    assert float(speedrun_loss().divisor(case()[2])) == 1.0


def test_weights_can_change_and_are_checked():
    x, weight, targets = case()
    loss = SpeedrunLoss([1, 0.5, 0.25])
    loss.set_weights([1, 0.25])
    found = loss.of_hidden(x, weight, targets, softcap=SigmoidCap()).objective
    torch.testing.assert_close(found, by_hand(x, weight, targets, [1, 0.25]), rtol=1e-7, atol=1e-7)
    for wrong in ([], [0.0], [1, -0.5], [float("nan")]):
        with pytest.raises(ValueError, match="weights of the next tokens are numbers from 0 on, the first positive"):
            loss.set_weights(wrong)


def test_prefix_tokens_are_the_longest_ones():
    ranks = {word: i for i, word in enumerate(WORDS)}
    table = prefix_table(ranks, V)
    for word, token in ranks.items():
        prefixes = [other for other in WORDS if word.startswith(other) and other != word]
        assert table[token] == (ranks[max(prefixes, key=len)] if prefixes else -1), word
    assert table[V - 1] == -1 and len(table) == V  # no token of this spelling
    assert table[ranks[b"abz"]] == ranks[b"ab"] and table[ranks[b"abcde"]] == ranks[b"abc"]


def test_prefix_tokens_of_a_tokenizer():
    with pytest.raises(
        ValueError, match=r"prefix tokens need a byte-level BPE tokenizer.* SimpleNamespace has no ranks"
    ):
        table_of(SimpleNamespace(vocab_size=3))
    bpe = SimpleNamespace(vocab_size=V, ranks={word: i for i, word in enumerate(WORDS)})
    assert torch.equal(table_of(bpe), prefix_table(bpe.ranks, V))
    speedrun_loss().use_tokenizer(SimpleNamespace())  # not asked for: any tokenizer will do


def test_the_last_weight_is_that_of_the_prefix_token():
    x, weight, targets = case()
    bpe = SimpleNamespace(vocab_size=V, ranks={word: i for i, word in enumerate(WORDS)})
    loss = speedrun_loss([1, 0.5, 0.3], prefix=True)
    with pytest.raises(ValueError, match="call use_tokenizer first"):
        loss.of_hidden(x, weight, targets)
    loss.use_tokenizer(bpe)
    expected = by_hand(x, weight, targets, [1, 0.5], prefix_table(bpe.ranks, V), 0.3)
    assert (expected - by_hand(x, weight, targets, [1, 0.5])).abs() > 0.1
    for sums in (
        loss.of_hidden(x, weight, targets, softcap=SigmoidCap()),
        loss(softcap(x @ weight.t(), SigmoidCap()), targets),
    ):
        torch.testing.assert_close(sums.objective, expected, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(sums.loss, by_hand(x, weight, targets, [1]).detach(), rtol=1e-7, atol=1e-7)
    with pytest.raises(ValueError, match="the last of at least two weights is that of the prefix token"):
        loss.set_weights([1.0])
