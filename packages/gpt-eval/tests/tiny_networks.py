"""Small random models with steep distributions, their float64 twins, and requests with every kind of sharing."""

import random

import numpy as np
import torch
import transformers

transformers.logging.set_verbosity_error()

VOCAB = 300
CONTEXT = 128

_LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
}


def config_of(kind):
    """A transformers configuration of two tiny layers; sliding windows are shorter than the tests' texts."""
    if kind == "gpt2":
        return transformers.GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=VOCAB, n_positions=CONTEXT)
    if kind == "bloom":  # ALiBi: takes no mask of one's own
        return transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=VOCAB, seq_length=CONTEXT)
    if kind == "llama":
        return transformers.LlamaConfig(**_LLAMA_LIKE)
    if kind == "mistral":
        return transformers.MistralConfig(**_LLAMA_LIKE, sliding_window=7)
    if kind == "gemma2":  # caps, and layers with and without a window
        layers = ["sliding_attention", "full_attention"]
        return transformers.Gemma2Config(**_LLAMA_LIKE, sliding_window=7, layer_types=layers)
    if kind == "granite":  # scales its logits
        return transformers.GraniteConfig(**_LLAMA_LIKE, logits_scaling=3.0)
    if kind == "gpt_neo":  # local layers count the slots of the cache
        layers = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 20}
        sizes = {"hidden_size": 32, "num_heads": 4, "vocab_size": VOCAB, "max_position_embeddings": CONTEXT}
        return transformers.GPTNeoConfig(**layers, **sizes, intermediate_size=48)
    raise KeyError(kind)


def causal_model(kind, scale=6.0):
    """A random model whose matrices are multiplied so that its predictions are no near-ties."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(kind)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return model


class FixedWidth:
    """Token ids of one character each; what a test needs of a transformers tokenizer, and of gpt_data's."""

    vocab_size, eot_id, eos_token_id, bos_token_id, chat_template = VOCAB, 7, 7, None, None

    def __call__(self, text, add_special_tokens=False, verbose=True):
        return {"input_ids": self.encode(text)}

    def __len__(self):
        return VOCAB

    def get_vocab(self):
        return {chr(i + 32): i for i in range(VOCAB)}

    def encode(self, text):
        return [ord(c) - 32 for c in text]

    def decode(self, ids, **settings):
        return "".join(chr(i + 32) for i in ids)


def texts(rng, length):
    return [rng.randrange(VOCAB) for _ in range(length)]


def requests(seed=0):
    """Contexts with and without a shared long beginning; choices that begin alike, repeat, and are each other's
    beginning; one-token answers; contexts that vary before one ending; a context of one token; in random order."""
    rng = random.Random(seed)
    asked = []
    shots = texts(rng, 70)
    for i in range(10):
        context = (shots if i % 2 else []) + texts(rng, rng.randrange(1, 25))
        choices = [texts(rng, rng.randrange(1, 8)) for _ in range(3)]
        choices += [choices[0] + texts(rng, 3), choices[1][:1] + texts(rng, 2), choices[2]]
        asked += [(context, choice) for choice in choices]
    letters = texts(rng, 4)
    for _ in range(4):
        context = texts(rng, rng.randrange(10, 30))
        asked += [(context, [letter]) for letter in letters]
    for _ in range(3):
        begin, ending = texts(rng, 30), texts(rng, 4)
        asked += [(begin + texts(rng, 3), ending), (begin + texts(rng, 2), ending)]
    asked += [(texts(rng, 1), texts(rng, 40)), (texts(rng, 100), texts(rng, CONTEXT - 99))]
    rng.shuffle(asked)
    return asked


@torch.no_grad()
def oracle(logits_of, asked):
    """(log-probabilities, greedy) of each request from one unbatched forward pass in float64.

    logits_of: (1, T) ids to (1, T, V) logits of a float64 model.
    """
    scores = []
    for context, continuation in asked:
        logits = logits_of(torch.tensor([[*context, *continuation[:-1]]]))[0, -len(continuation) :]
        assert logits.dtype == torch.float64
        target = torch.tensor(continuation)
        logprobs = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
        scores.append((logprobs.numpy(), (logits.argmax(-1) == target).numpy()))
    return scores


def worst_difference(scored, expected):
    """Largest difference of a token's log-probability; greedy flags have to be equal."""
    assert len(scored) == len(expected)
    for got, (_, greedy) in zip(scored, expected, strict=True):
        np.testing.assert_array_equal(got.greedy, greedy)
    return max(float(np.abs(got.logprobs - want).max()) for got, (want, _) in zip(scored, expected, strict=True))
