"""gpt_eval scores and continues gpt_core's GPT through its cache with the numbers of whole texts in float64."""

import random

import numpy as np
import pytest
import torch

from gpt_core.models.gpt import gpt
from gpt_eval.models import GPTModel

VOCAB, CONTEXT = 60, 96
ARCHITECTURES = {
    "learned positions": {},
    "rotary, RMS norm, QK norm": {"position_encoding": "rope", "normalization": "rmsnorm", "qk_norm": True},
    "windows and a soft cap": {"position_encoding": "rope", "window": 6, "window_pattern": "SL", "logit_softcap": 15.0},
    "grouped queries": {"n_kv_head": 2},
}


class Letters:
    vocab_size, eot_id = VOCAB, 0

    def encode(self, text):
        return [ord(c) - 32 for c in text]

    def decode(self, ids):
        return "".join(chr(i + 32) for i in ids)


def steep(fields):
    torch.manual_seed(0)
    model = gpt(VOCAB, CONTEXT, n_layer=2, n_head=4, n_embd=32, **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model.eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_and_texts_are_those_of_whole_texts(name):
    model = steep(ARCHITECTURES[name])
    lent = GPTModel(model, Letters())
    assert lent._network.can_branch and not lent._network.holds_logits
    rng = random.Random(0)
    text = lambda length: [rng.randrange(VOCAB) for _ in range(length)]
    contexts = [text(rng.randrange(1, 60)) for _ in range(8)]
    asked = [(context, text(rng.randrange(1, 9))) for context in contexts for _ in range(4)]
    scored, (greedy,) = lent.score(asked), lent.generate([contexts[0]], max_new_tokens=9)[0]
    double = model.double()
    with torch.no_grad():
        for one, (context, continuation) in zip(scored, asked, strict=True):
            logits = double(torch.tensor([[*context, *continuation[:-1]]]))[0, -len(continuation) :].double()
            target = torch.tensor(continuation)
            expected = logits.log_softmax(-1).gather(1, target[:, None])[:, 0].numpy()
            np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)
            np.testing.assert_array_equal(one.greedy, (logits.argmax(-1) == target).numpy())
        ids = list(contexts[0])
        for _ in range(9):
            token = int(double(torch.tensor([ids]))[0, -1].argmax())
            if token == Letters.eot_id:
                break
            ids.append(token)
    assert greedy == Letters().decode(ids[len(contexts[0]) :])
