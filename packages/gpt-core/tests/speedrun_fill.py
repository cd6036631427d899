"""The weights of the speedrun's golden forward: a hash of the seed and of the place in the tensor."""

import numpy as np
import torch

AMPLITUDES = {
    "attn": (0, 0.06),
    "mlp": (1, 0.04),
    "scalars": (2, 0.2),
    "value_embed": (3, 1.0),
    "bigram_embed": (4, 1.0),
    "smear_gate": (5, 0.5),
    "skip_gate": (6, 0.5),
    "attn_gate_bank": (7, 0.5),
    "ve_gate_bank": (8, 0.5),
    "x0_lambdas": (9, 0.3),
    "lm_head": (10, 0.2),
}
"""Seed and amplitude by parameter; `scalars` are their first values plus this."""
CHUNK = 2**17


def hashed(count, seed, amplitude, start=0):
    """(count,) float32 in ±amplitude, of the places from `start` on."""
    out = np.empty(count, np.float32)
    offset = np.uint32((12345 + 777767777 * seed) % 2**32)
    with np.errstate(over="ignore"):
        for at in range(0, count, CHUNK):
            h = np.arange(start + at, start + min(at + CHUNK, count), dtype=np.uint32)
            h *= np.uint32(1103515245)
            h += offset
            h ^= h >> np.uint32(16)
            h *= np.uint32(1103515245)
            h ^= h >> np.uint32(13)
            out[at : at + CHUNK] = amplitude * 2 * (h / 2**32 - 0.5)
    return torch.from_numpy(out)


@torch.no_grad()
def fill(model, rows):
    """Fill in the weights; of the tables only `rows` (name -> list of rows), of the embedding those of the head."""
    for name, (seed, amplitude) in AMPLITUDES.items():
        parameter = getattr(model, name)
        if name in rows:
            width = parameter.shape[1]
            for row in rows[name]:
                parameter[row] = hashed(width, seed, amplitude, row * width)
            continue
        values = hashed(parameter.numel(), seed, amplitude).view_as(parameter)
        parameter.copy_(parameter + values if name == "scalars" else values)
    model.embed[rows["embed"]] = model.lm_head.t()[rows["embed"]]
