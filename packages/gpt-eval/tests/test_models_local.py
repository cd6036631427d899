"""GPTModel and HuggingFaceModel: scores, generation alone and in company, chat, refusals."""

import numpy as np
import pytest
import tiny_networks as tiny
import torch
import transformers
from torch import nn

from gpt_eval.errors import EvaluationError, UnsupportedByBackend
from gpt_eval.models import GPTModel, HuggingFaceModel
from gpt_eval.models.generation import Decoding, generate

PROMPTS = [[(i * k + 11) % tiny.VOCAB for i in range(n)] for k, n in ((3, 5), (5, 17), (9, 2), (17, 40))]


class SmallGPT(nn.Module):
    """One layer of attention with a window of 9, written for the cache protocol of `gpt_network` and nothing else."""

    supports_cache = True
    window = 9

    class Config:
        vocab_size, context_length = tiny.VOCAB, tiny.CONTEXT

        @staticmethod
        def layer_window(layer):
            return SmallGPT.window

    config = Config()

    def __init__(self, width=32):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weight = lambda *shape: nn.Parameter(0.5 * torch.randn(shape, generator=generator))
        self.embed, self.place = weight(tiny.VOCAB, width), weight(tiny.CONTEXT, width)
        self.qkv, self.out = weight(3 * width, width), weight(tiny.VOCAB, width)

    def hidden(self, ids, cache=None):
        T = ids.shape[1]
        positions = torch.arange(T) if cache is None else cache.positions(T)
        x = self.embed[ids] + self.place[positions]
        q, k, v = ((x @ self.qkv.T)[:, None]).chunk(3, dim=-1)
        mask = None
        if cache is not None:
            k, v, mask = cache.update(0, k, v)
            cache.advance(T)
        if mask is None:
            S = k.shape[2]
            places, queries = torch.arange(S), torch.arange(S - T, S)[:, None]
            mask = ((places <= queries) & (places > queries - self.window))[None, None]
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
        return x + (scores.softmax(-1) @ v)[:, 0]

    def logits(self, x):
        return x @ self.out.T

    def forward(self, ids):
        return self.logits(self.hidden(ids))


class Subclass(SmallGPT):
    """Has a hand in its logits, so head and body apart are not the model."""

    def forward(self, ids):
        return 2 * super().forward(ids)


class Callable:
    """Logits and nothing else: no parameters, no config, no cache."""

    def __init__(self):
        self.inner = SmallGPT()

    def __call__(self, ids):
        return self.inner(ids).detach()


def models():
    tokenizer = tiny.FixedWidth()
    return {
        "gpt": GPTModel(SmallGPT(), tokenizer),
        "subclass": GPTModel(Subclass(), tokenizer),
        "callable": GPTModel(Callable(), tokenizer, max_length=tiny.CONTEXT),
        "gpt2": HuggingFaceModel(tiny.causal_model("gpt2"), tokenizer),
        "gemma2": HuggingFaceModel(tiny.causal_model("gemma2", scale=3.0), tokenizer),
        "bloom": HuggingFaceModel(tiny.causal_model("bloom"), tokenizer, max_length=tiny.CONTEXT),
    }


MODELS = models()


@pytest.mark.parametrize("name", ["gpt", "subclass", "callable"])
def test_gpt_scores_equal_one_float64_forward(name):
    model = MODELS[name]
    assert model._network.can_branch == (name == "gpt")
    assert model._network.holds_logits == (name != "gpt")
    asked = tiny.requests()
    inner = getattr(model.model, "inner", model.model)
    scored = model.score(asked)
    try:
        expected = tiny.oracle(inner.double(), asked)
    finally:
        inner.float()
    assert tiny.worst_difference(scored, expected) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_greedy_generation_is_the_argmax_of_the_whole_text(name):
    model = MODELS[name]
    texts = model.generate(PROMPTS, max_new_tokens=12)
    for prompt, (text,) in zip(PROMPTS, texts, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 12:
            with torch.no_grad():
                logits = model._network.head(model._network.hidden(torch.tensor([ids]))[0, -1:])
            token = int(logits[0].argmax())
            if token == 7:  # end of text
                break
            ids.append(token)
        assert text == model.decode(ids[len(prompt) :])


@pytest.mark.parametrize("name", ["gpt", "callable", "gemma2"])
def test_a_sample_does_not_depend_on_its_company(name):
    settings = {"max_new_tokens": 10, "temperature": 0.9, "top_p": 0.95, "top_k": 60, "seed": 5}
    model = MODELS[name]
    together = model.generate(PROMPTS, n=3, **settings)
    for prompt, samples in zip(PROMPTS, together, strict=True):
        assert model.generate([prompt], n=3, **settings) == [samples]
        assert model.generate([prompt], n=1, **settings) == [samples[:1]]
    assert len(set(together[0])) > 1
    assert model.generate(PROMPTS, n=3, **settings | {"seed": 6}) != together


def test_greedy_samples_are_equal():
    (samples,) = MODELS["gpt"].generate(PROMPTS[:1], max_new_tokens=4, n=3)
    assert len(samples) == 3 and len(set(samples)) == 1


def test_ends_once_a_stop_has_appeared():
    model = MODELS["gpt2"]
    ((whole,),) = model.generate(PROMPTS[:1], max_new_tokens=20)
    stop = whole[5:7]
    ((text,),) = model.generate(PROMPTS[:1], max_new_tokens=20, stops=["never there", stop])
    assert text == whole[: whole.index(stop) + 2]


def test_ends_at_the_models_length():
    prompt = PROMPTS[3] * 3 + [1] * 5  # 125 tokens of 128: the last of 4 new ones is not fed
    texts = MODELS["gpt"].generate([prompt], max_new_tokens=50)
    assert len(texts[0][0]) <= 4
    with pytest.raises(ValueError, match=r"prompt 0 has 129 tokens, expected 1\.\.128"):
        MODELS["gpt"].generate([[1] * 129], max_new_tokens=1)


def test_top_k_and_top_p_leave_the_likeliest():
    for setting in ({"top_k": 1}, {"top_p": 1e-9}):
        sampled = MODELS["gpt2"].generate(PROMPTS, max_new_tokens=8, temperature=1.5, **setting)
        assert sampled == MODELS["gpt2"].generate(PROMPTS, max_new_tokens=8)


def test_samples_follow_the_distribution():
    """900 draws of one token at temperature 2 against the softmax, by total variation."""
    model, n = MODELS["gpt"], 900
    decoding = Decoding(1, temperature=2.0, top_k=5, n=n)
    drawn = generate(model._network, PROMPTS[:1], decoding, str, max_length=128, batch_tokens=4096)[0]
    with torch.no_grad():
        logits = model._network.head(model._network.hidden(torch.tensor(PROMPTS[:1]))[0, -1:])[0].double()
    best = logits.topk(5)
    expected = dict(zip(best.indices.tolist(), (best.values / 2).softmax(0).tolist(), strict=True))
    counts = {token: sum(ids == [token] for ids in drawn) / n for token in expected}
    assert sum(counts.values()) == pytest.approx(1)
    assert sum(abs(counts[token] - expected[token]) for token in expected) / 2 < 0.06


def test_a_tools_answer_is_fed_and_not_drawn():
    answer = [50, 51, 52]
    tool = lambda made: answer if len(made) == 2 else []
    model = GPTModel(SmallGPT(), tiny.FixedWidth(), tool=tool)
    plain = MODELS["gpt"].generate(PROMPTS, max_new_tokens=8)
    fed = model.generate(PROMPTS, max_new_tokens=8)
    for prompt, (a,), (b,) in zip(PROMPTS, plain, fed, strict=True):
        begin = model.encode(b)[:5]
        assert begin == [*model.encode(a)[:2], *answer]
        rest = MODELS["gpt"].generate([[*prompt, *begin]], max_new_tokens=3)
        assert b[5:] == rest[0][0]


def test_chat_is_refused_by_name_without_a_template_and_used_with_one():
    messages = [{"role": "user", "content": "hello"}]
    for name in ("gpt", "gpt2"):
        assert MODELS[name].supports == {"score", "generate"}
        with pytest.raises(UnsupportedByBackend, match="chat template"):
            MODELS[name].chat_ids(messages)
        with pytest.raises(UnsupportedByBackend, match="chat template"):
            MODELS[name].generate([messages], max_new_tokens=1)
    tokenizer = tiny.FixedWidth()
    render = lambda said: [1, *tokenizer.encode(said[0]["content"]), 2]
    model = GPTModel(SmallGPT(), tokenizer, chat=render, bos_id=1)
    assert model.supports == {"score", "generate", "chat", "chat_score"}
    assert model.encode("a", specials=True) == [1, 65]
    assert model.generate([messages], max_new_tokens=5) == model.generate([render(messages)], max_new_tokens=5)


def test_the_model_is_given_back_as_it_was():
    model = SmallGPT().train()
    lent = GPTModel(model, tiny.FixedWidth())
    lent.score([([1], [2])])
    assert model.training
    model.eval()
    lent.score([([1], [2])])
    assert not model.training


def test_dropout_is_off():
    model = tiny.causal_model("gpt2").train()
    lent = HuggingFaceModel(model, tiny.FixedWidth())
    asked = [([1, 2, 3], [4, 5])]
    assert lent.score(asked)[0].sum == lent.score(asked)[0].sum
    np.testing.assert_allclose(lent.score(asked)[0].logprobs, MODELS["gpt2"].score(asked)[0].logprobs, atol=1e-5)
    assert model.training


def test_a_foreign_tokenizer_is_refused():
    class Large(tiny.FixedWidth):
        vocab_size = tiny.VOCAB + 1

    with pytest.raises(EvaluationError, match="301 tokens and gpt knows 300"):
        GPTModel(SmallGPT(), Large())


def test_a_callable_has_to_say_its_length():
    with pytest.raises(EvaluationError, match="max_length="):
        GPTModel(Callable(), tiny.FixedWidth())


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": 0}, {"n": 0}, {"stops": [""]}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"got|empty stop"):
        MODELS["gpt"].generate(PROMPTS, **{"max_new_tokens": 3} | wrong)


def test_tokenizers_are_told_apart():
    class Other(tiny.FixedWidth):
        def decode(self, ids, **settings):
            return super().decode(ids).lower()

    a, b = GPTModel(SmallGPT(), tiny.FixedWidth()), GPTModel(SmallGPT(), Other())
    assert a.tokenizer_hash == MODELS["gpt2"].tokenizer_hash != b.tokenizer_hash


def test_a_folder_is_loaded(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    letters = sorted(ByteLevel.alphabet())
    bpe = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)} | {"Ġa": 256}, [("Ġ", "a")]))
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    from tokenizers.decoders import ByteLevel as Decoder

    bpe.decoder = Decoder()
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    saved = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", chat_template=template)
    saved.save_pretrained(tmp_path)
    model = tiny.causal_model("gpt2")
    model.save_pretrained(tmp_path)
    loaded = HuggingFaceModel(tmp_path, device="cpu", dtype="float32")
    assert loaded.prefix_space and loaded.max_length == tiny.CONTEXT and loaded.name == str(tmp_path)
    assert loaded.decode(loaded.encode("Na, so a  café \n")) == "Na, so a  café \n"
    asked = tiny.requests()
    for a, b in zip(loaded.score(asked), MODELS["gpt2"].score(asked), strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
    assert loaded.supports >= {"chat"}
    messages = [{"role": "user", "content": "hi"}]
    assert loaded.decode(loaded.chat_ids(messages)) == "<user>hi<assistant>"
    assert len(loaded.generate([messages], max_new_tokens=3)[0]) == 1
    with pytest.raises(EvaluationError, match="nothing: no such folder"):
        HuggingFaceModel(tmp_path / "nothing", device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="holds no"):
        HuggingFaceModel(tmp_path / "empty", device="cpu")


def test_a_model_that_sees_what_comes_after_is_refused():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=tiny.VOCAB, max_position_embeddings=tiny.CONTEXT, **sizes)
    with pytest.raises(EvaluationError, match="is_decoder"):
        HuggingFaceModel(transformers.AutoModelForCausalLM.from_config(config), tiny.FixedWidth())


def test_frequencies_that_change_with_the_longest_text_of_a_batch_bound_the_context():
    """LongRoPE turns a short text's vectors otherwise once a text beyond the original length is in its batch."""
    config = tiny.config_of("llama")
    config.rope_parameters = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 32, "factor": 4.0,
    }  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert HuggingFaceModel(model, tiny.FixedWidth()).max_length == 32
    with pytest.raises(EvaluationError, match="company"):
        HuggingFaceModel(model, tiny.FixedWidth(), max_length=33)
