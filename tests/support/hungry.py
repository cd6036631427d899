"""A GPT on a machine whose memory holds few sequences at a time, on one rank."""

import os

import torch

from gpt_core.models.gpt import GPT, GPTConfig


class Hungry(GPT):
    """Raises what CUDA's allocator does, for more than `most` sequences in training, on one `rank`."""

    most, rank = 2, "0"

    def hidden(self, ids_BT, **options):
        if self.training and len(ids_BT) > self.most and os.environ.get("RANK", "0") == self.rank:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has ...")
        return super().hidden(ids_BT, **options)


def gpt(vocab_size: int, context_length: int, preset: str = "gpt2_pre", **fields):
    return Hungry(GPTConfig.from_preset(preset, vocab_size=vocab_size, context_length=context_length, **fields))


def on_rank_1(vocab_size: int, context_length: int, preset: str = "gpt2_pre", **fields):
    model = gpt(vocab_size, context_length, preset, **fields)
    model.rank = "1"
    return model


def starved(vocab_size: int, context_length: int, preset: str = "gpt2_pre", **fields):
    model = gpt(vocab_size, context_length, preset, **fields)
    model.most = 0
    return model


for factory in (gpt, on_rank_1, starved):
    factory.accepts = GPTConfig
