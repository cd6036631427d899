"""Parameters of a model by the groups that scaling laws and optimizers tell apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gpt_core.models import GPT


@dataclass(frozen=True)
class Counts:
    """Parameters of one model. With tied weights `lm_head` is 0 and the one matrix is `wte`."""

    wte: int
    """Token embedding, the padding of the vocabulary included."""
    position: int
    """Table of learned positions."""
    value_embeds: int
    """Embeddings that are added to attention's values."""
    lm_head: int
    transformer_matrices: int
    """Everything in the blocks with two dimensions."""
    scalars: int
    """Gains, biases, factors, gates outside the blocks."""
    tied: bool = False

    @property
    def total(self) -> int:
        return self.lm_head + self.total_tied

    @property
    def total_tied(self) -> int:
        """With one vocabulary matrix for embedding and head, whether the model shares it or not."""
        return self.wte + self.position + self.value_embeds + self.transformer_matrices + self.scalars

    @property
    def scaling(self) -> int:
        """N of the horizon and of scaling laws: the matrices that every token is multiplied with, blocks and head."""
        return self.transformer_matrices + (self.wte if self.tied else self.lm_head)


def counts_of(model: nn.Module) -> Counts:
    """Count the parameters of a GPT, on any device (on "meta" nothing is allocated).

    ValueError: another model; its sizes are not what depth is about.
    """
    if not isinstance(model, GPT):
        raise ValueError(
            f"the section scaling is for a GPT (gpt_core.models.gpt, gpt_core.models.nanochat), got a "
            f"{type(model).__name__}: it has sizes and a recipe of its own. Leave scaling out, and set its sizes and "
            "training.max_steps yourself"
        )
    groups = dict.fromkeys(("wte", "position", "value_embeds", "lm_head", "transformer_matrices", "scalars"), 0)
    for name, parameter in model.named_parameters():
        groups[_group(name.split("."), parameter.ndim)] += parameter.numel()
    return Counts(**groups, tied=model.config.weight_tying)


def _group(path: list[str], ndim: int) -> str:
    if path[0] == "blocks":
        return "transformer_matrices" if ndim > 1 else "scalars"
    return {"embed": "wte", "head": "lm_head", "position": "position", "value_embeds": "value_embeds"}.get(
        path[0], "scalars"
    )
