"""A GPT that computes: a DAG of exact arithmetic beside the blocks, folded back into what the head reads.

Dimensions: B batch, T tokens, Q positions that see the DAG, D model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gpt_core.models import GPT, GPTConfig
from gpt_core.models.attention import KVCache
from gpt_core.models.norms import NORMS
from gpt_core.monitor import Sinks
from gpt_core.training.config import LoggingConfig
from gpt_core.training.state import Hook

from .controller import Controller
from .gate import OPEN, GateMixer
from .plan_source import PlanSource
from .trace import PlanValues, Trace

GateMode = Literal["all", "last"]
READ_OUT = ("read_out.place", "read_out.since", "read_out.character.weight")


class Dag(nn.Module):
    """The parameters that a GPT with a DAG has beyond the plain one's."""

    def __init__(self, config: GPTConfig, source: Controller | PlanSource, gate: GateMixer):
        super().__init__()
        self.source, self.gate = source, gate
        self.norm = NORMS[config.normalization](config.n_embd, config.norm_eps)
        """What is mixed in has the scale of what it is mixed with, which comes out of the GPT's final norm."""


class DagGPT(GPT):
    """hidden = GPT's hidden, mixed with what the DAG says; the rest (head, loss, generation) is the GPT's.

    gate_mode "last": the last position only, h ← (1 − g)·h + g·dag, as in nanoGPT-DAG. "all": every position, each
    from the tokens up to there, so that every training token sees a DAG and none sees the future.
    All parameters beyond the plain GPT's are named `dag.*`; the others are drawn first, so a seed gives both models
    the same ones.
    """

    supports_cache = False
    """A node may point to any token: all hidden states are needed at every step."""
    supports_packing = False

    def __init__(
        self,
        config: GPTConfig,
        make_source: Callable[[GPTConfig], Controller | PlanSource],
        gate_mode: GateMode = "all",
        gate_keep: float = 1.0,
    ):
        super().__init__(config)  # draws its weights first: a seed gives them to the plain GPT and to this one alike
        if gate_mode not in ("all", "last"):
            raise ValueError(f"gate_mode is all or last, got {gate_mode!r}")
        self.gate_mode = gate_mode
        self.rebuild_kwargs: dict[str, Any] = {}
        """Arguments of `gpt_dag`, beside those of the config, that build another like it."""
        self.notes: list[str] = []
        """What a run should say about where the weights come from."""
        self.dag = Dag(config, make_source(config), GateMixer(config.n_embd, gate_keep))
        init_dag_weights(self)
        self.trace: Trace | None = None
        self.tracing = False
        """Whether forward passes leave a `trace`: it keeps their whole graph alive."""

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Vectors that the head reads, (B, T, D)."""
        if cache is not None or cu_seqlens is not None:
            raise ValueError("a GPT with a DAG takes plain rows: no key/value cache and no packed documents")
        h_BTD = super().hidden(ids_BT)
        last = self.gate_mode == "last"
        source, present_BQ = self.dag.source, None
        if isinstance(source, Controller):
            dag_BQD, nodes = source(h_BTD, last)
        else:
            dag_BQD, present_BQ, nodes = source(h_BTD, ids_BT)
            if last:
                dag_BQD, present_BQ = dag_BQD[:, -1:], present_BQ[:, -1:]
                nodes = PlanValues(*(field[:, -1:] for field in nodes))
        h_BQD = h_BTD[:, -1:] if last else h_BTD
        dag_BQD = self.dag.norm(dag_BQD)
        fused_BQD, gate_BQ1 = self.dag.gate(h_BQD, dag_BQD, present_BQ)
        if self.tracing:
            self.trace = Trace(h_BQD, dag_BQD, fused_BQD, gate_BQ1, nodes)
        return torch.cat([h_BTD[:, :-1], fused_BQD], 1) if last else fused_BQD

    def hooks(self, sinks: Sinks, logging: LoggingConfig) -> list[Hook]:
        """What `gpt_core.training.run` calls beside the training steps: the DAG's figures, as often as the loss."""
        from gpt_dag.logger import LogDAG  # it knows this class

        return [LogDAG(sinks, logging.log_every)]


def init_dag_weights(model: DagGPT) -> None:
    """First values of the DAG's own parameters, drawn after the GPT's; a pretrained predictor keeps its own.

    As in the GPT: matrices normal with std init_std, biases 0, norms 1. The gate's bias is `OPEN`. What the read-out
    head compares has std 1, and it begins by reading one character after the other: `since` as `place`.
    """
    config = model.config
    generator = None
    if config.init_seed is not None and not model.embed.weight.is_meta:
        generator = torch.Generator(model.embed.weight.device).manual_seed(config.init_seed + 1)
    with torch.no_grad():
        for name, parameter in model.dag.named_parameters():
            if ".predictor." in name:
                continue
            if name == "gate.map.bias":
                parameter.fill_(OPEN)
            elif name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim < 2:
                parameter.fill_(1.0)
            else:
                std = 1.0 if name.endswith(READ_OUT) else config.init_std
                parameter.normal_(0.0, std, generator=generator)
        if isinstance(model.dag.source, PlanSource):
            head = model.dag.source.read_out
            head.since[: len(head.place)] = head.place
