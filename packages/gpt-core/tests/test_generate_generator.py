"""Generator: text in and out, and finding the checkpoint that was meant."""

import json
import logging
import os

import pytest
import torch

from gpt_core.checkpoint import CheckpointError, save_model
from gpt_core.generate import Generator, locate
from gpt_core.models import gpt

SIZES = {"vocab_size": 259, "context_length": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "init_std": 0.3}


class Bytes:
    """UTF-8 bytes and an end-of-text token."""

    vocab_size, eot_id = 257, 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return b"".join(bytes([i]) if i < 256 else b"<|end|>" for i in ids).decode("utf-8", errors="replace")


class Letters:
    """A dict of characters without end-of-text, as in nanoGPT's meta.pkl."""

    stoi = {c: i for i, c in enumerate("\nabcdefgh")}  # noqa: RUF012
    vocab_size, eot_id = len(stoi), None

    def encode(self, text):
        return [self.stoi[c] for c in text]

    def decode(self, ids):
        return "".join("\nabcdefgh"[i] for i in ids)


def build(seed=0, **more):
    torch.manual_seed(seed)
    return gpt(**{**SIZES, **more})


def letters(**more):
    return Generator(build(vocab_size=len(Letters.stoi)), Letters(), **more)


def test_texts_begin_with_their_prompts_in_order():
    texts = letters().generate(["ab", "cde"], max_new_tokens=5, num_samples=2, seed=1)
    assert [len(text) for text in texts] == [7, 7, 8, 8]
    assert [text[:2] for text in texts] == ["ab", "ab", "cd", "cd"]
    assert texts[0] != texts[1]


def test_one_prompt_may_be_a_plain_string():
    generator = letters()
    assert generator.generate("ab", max_new_tokens=4, seed=3) == generator.generate(["ab"], max_new_tokens=4, seed=3)


def test_same_seed_same_text_cached_or_not():
    generator = letters()
    settings = {"max_new_tokens": 20, "temperature": 0.8, "top_k": 5, "repetition_penalty": 1.2, "num_samples": 3}
    texts = generator.generate("abc", seed=7, **settings)
    assert texts == generator.generate("abc", seed=7, cache=False, **settings)
    assert texts != generator.generate("abc", seed=8, **settings)


def test_max_length_counts_the_prompt_and_max_new_tokens_does_not():
    generator = letters()
    assert [len(t) for t in generator.generate(["ab", "cdefg"], max_length=8, seed=0)] == [8, 8]
    with pytest.raises(ValueError, match="5 tokens, which leaves nothing to generate of max_length=5"):
        generator.generate(["ab", "cdefg"], max_length=5)
    for both_or_none in ({}, {"max_length": 9, "max_new_tokens": 3}):
        with pytest.raises(ValueError, match=r"either max_length .* or max_new_tokens"):
            generator.generate("ab", **both_or_none)


def test_stop_texts_are_cut_off():
    generator = letters()
    free = generator.generate("ab", max_new_tokens=25, temperature=0.0)[0]
    stop = free[10:13]
    stopped = generator.generate("ab", max_new_tokens=25, temperature=0.0, stop=stop)[0]
    assert stopped == "ab" + free[2:].partition(stop)[0]
    assert len(stopped) < len(free)


def test_the_end_of_text_token_ends_a_sample():
    generator = Generator(build(), Bytes())
    samples = {"max_new_tokens": 60, "num_samples": 12, "temperature": 3.0, "seed": 0}
    pieces = list(generator.stream("a", **samples))
    assert {"stop_token", "length"} == {piece.reason for piece in pieces if piece.reason}
    assert not any("<|end|>" in piece.text for piece in pieces)
    assert any("<|end|>" in text for text in generator.generate("a", stop_at_eot=False, **samples))


def test_stream_joins_to_what_generate_returns():
    generator = Generator(build(), Bytes())
    settings = {"max_new_tokens": 40, "num_samples": 3, "seed": 2, "temperature": 1.5, "stop": ["e", "\x00\x01"]}
    texts = ["é", "é", "é"]
    for piece in generator.stream("é", **settings):
        texts[piece.row] += piece.text
    assert texts == generator.generate("é", **settings)


def test_padding_of_the_vocabulary_is_never_drawn():
    generator = Generator(build(), Bytes())  # 257 of the model's 259 tokens exist
    generator.model.embed.weight.data[257:] *= 50  # were they allowed, they would win
    assert generator.generate("a", max_new_tokens=30, seed=0, num_samples=4)


def test_unknown_characters_are_named():
    with pytest.raises(ValueError, match=r"does not know 'X' in the prompt 'aXb'"):
        letters().generate("aXb", max_new_tokens=3)


def test_an_empty_prompt_starts_a_document_or_is_an_error():
    assert len(Generator(build(), Bytes()).generate("", max_new_tokens=3, seed=0)) == 1
    with pytest.raises(ValueError, match="prompt is empty"):
        letters().generate("", max_new_tokens=3)


def test_a_tokenizer_larger_than_the_model_is_refused():
    with pytest.raises(ValueError, match="tokenizer has 257 tokens and the model knows 100"):
        Generator(build(vocab_size=100), Bytes())


def test_a_full_context_goes_to_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        letters().generate(["ab", "abc"], max_new_tokens=40, seed=0)
    assert len(caplog.records) == 1
    assert "context of 32 tokens is full" in caplog.text


# checkpoints


def save(folder, seed):
    folder.mkdir(parents=True)
    meta = {
        "step": seed,
        "tokens": 0,
        "val_loss": None,
        "model": {"module": "gpt_core.models.gpt", "module_kwargs": SIZES},
    }
    save_model(folder, build(seed), meta)


def make_run(out, name, steps):
    for step in steps:
        save(out / name / "checkpoints" / f"step_{step:06d}", step)
    (out / name / "checkpoints" / "latest").symlink_to(f"step_{max(steps):06d}")
    (out / name / "checkpoints" / "best").symlink_to(f"step_{min(steps):06d}")
    (out / name / "tokenizer").mkdir()
    (out / name / "tokenizer" / "kind.json").write_text(json.dumps(name))
    return out / name


def load_tokenizer(folder):
    assert (folder / "kind.json").is_file()
    return Bytes()


@pytest.mark.parametrize(
    ("checkpoint", "step"), [("latest", 20), ("best", 10), ("step_000010", 10), ("20", 20), ("10", 10)]
)
def test_from_run_loads_the_named_weights(tmp_path, checkpoint, step):
    run = make_run(tmp_path, "a", [10, 20])
    generator = Generator.from_run(run, checkpoint, load_tokenizer=load_tokenizer)
    for got, saved in zip(generator.model.parameters(), build(step).parameters(), strict=True):
        assert torch.equal(got, saved)
    assert generator.generate("a", max_new_tokens=3, seed=0)


def test_from_run_in_another_precision(tmp_path):
    run = make_run(tmp_path, "a", [10])
    generator = Generator.from_run(run, load_tokenizer=load_tokenizer, dtype=torch.bfloat16)
    assert next(generator.model.parameters()).dtype == torch.bfloat16
    assert len(generator.generate("a", max_new_tokens=40, seed=0)[0]) > 1


def test_a_folder_of_runs_means_the_newest(tmp_path):
    for age, name in enumerate(["new", "old"]):
        run = make_run(tmp_path, name, [5])
        os.utime(run / "checkpoints", (1e9 - age, 1e9 - age))
    assert locate(tmp_path) == (tmp_path / "new", tmp_path / "new/checkpoints/step_000005")


@pytest.mark.parametrize("path", ["checkpoints/step_000010", "checkpoints/best"])
def test_a_checkpoint_folder_finds_its_run(tmp_path, path):
    run = make_run(tmp_path, "a", [10, 20])
    assert locate(run / path) == (run, run / "checkpoints/step_000010")


def test_a_missing_checkpoint_lists_what_exists(tmp_path):
    make_run(tmp_path, "mine", [10, 20])
    with pytest.raises(CheckpointError, match=r"'step_99'.*step_000010, step_000020"):
        locate(tmp_path / "mine", "step_99")
    with pytest.raises(CheckpointError, match=r"mien.*runs with checkpoints in .*: mine"):
        locate(tmp_path / "mien")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no run with a checkpoint in .*empty"):
        locate(tmp_path / "empty")
