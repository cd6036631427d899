"""Examples in byte-pair tokens: the same texts, the tags at the ends of the same words."""

import pytest
import torch

from gpt_dag import expressions
from gpt_dag.predictor.decode import decode
from gpt_dag.stream import Law, sample
from gpt_dag.stream.bpe import PATTERN, in_bpe
from gpt_dag.tags import PLACE, ROLE

pytest.importorskip("tiktoken", reason="byte-pair tokens need gpt-data[bpe]")
from gpt_data.tokenizers import BPETokenizer

# every byte, and a few merges that meet words in different ways: whole, without their first letters, their ends alone
MERGES = (b" t", b"en", b"th", b" th", b"ty", b"on", b" on", b" one", b"hu", b" 1", b" -", b"is")


@pytest.fixture(scope="module")
def tokenizer():
    tokens = [bytes([i]) for i in range(256)] + list(MERGES)
    return BPETokenizer("small", {token: rank for rank, token in enumerate(tokens)}, PATTERN)


def test_texts_and_plans_are_the_same(tokenizer):
    law = Law(max_ops=3)
    examples = sample(law, 40, seed=1)
    layout = in_bpe(examples, tokenizer)
    rows = zip(layout.ids.tolist(), layout.length.tolist(), strict=True)
    assert [tokenizer.decode(ids[:length]) for ids, length in rows] == examples.texts()
    read = decode(layout.tags, law.max_digits)
    assert not read.invalid.any()
    assert read.plans.fractions() == examples.plans.fractions()


def test_tags_stand_where_words_end(tokenizer):
    examples = sample(Law(max_ops=1, styles=("cardinal",)), 40, seed=2)
    words, layout = examples.layout, in_bpe(examples, tokenizer)
    for column in range(6):
        tagged = [sorted(tags[..., column][tags[..., PLACE] >= 0].tolist()) for tags in (words.tags, layout.tags)]
        assert [v for v in tagged[0] if v > 0] == [v for v in tagged[1] if v > 0]
    inside = torch.arange(layout.ids.shape[1]) < layout.length[:, None]
    assert torch.equal(layout.tags[..., ROLE] >= 0, inside)
    for ids, tags, text in zip(layout.ids.tolist(), layout.tags[..., ROLE].tolist(), examples.texts(), strict=True):
        ends = [len(tokenizer.decode(ids[: i + 1])) for i, role in enumerate(tags) if role > 0]
        assert ends[-1] == len(text)
        assert all(end == len(text) or text[end] in " ," for end in ends)


def test_the_loader_hands_them_out(tokenizer, monkeypatch):
    monkeypatch.setattr("gpt_dag.stream.loader.digit_tokenizer", lambda: tokenizer)
    monkeypatch.setattr("gpt_dag.stream.loader.GPT2_PER_WORD", 9)  # nearly every letter is a token here
    monkeypatch.setattr("gpt_dag.stream.loader.BLOCK", 12)
    splits = expressions(200, 6, tokenizer="gpt2", max_ops=1, held_out=4, prefetch=0)
    assert splits.train.vocab_size == tokenizer.vocab_size
    batch, held_out = next(splits.train), next(splits.val)
    assert batch.inputs.shape[1] % 8 == 0 and batch.inputs.max() > 70
    assert not decode(batch.targets, 4).invalid.any()
    assert held_out.targets[4:].eq(-1).all()


def test_other_tokenizers_are_refused():
    with pytest.raises(ValueError, match="tokenizer is 'gpt4', expected one of words, gpt2"):
        expressions(40, 6, tokenizer="gpt4")
