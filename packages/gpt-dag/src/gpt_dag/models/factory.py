"""GPT with or without a DAG, from keyword arguments; what configurations and checkpoints name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from gpt_core.models import GPT, GPTConfig, gpt

from .controller import Controller
from .dag_gpt import DagGPT, GateMode
from .load_predictor import predictor_of
from .plan_source import PlanSource

PlanSourceName = Literal["controller", "predictor"]


def gpt_dag(
    vocab_size: int,
    context_length: int,
    dag_depth: int = 2,
    gate_mode: GateMode = "all",
    gate_keep: float = 1.0,
    plan_source: PlanSourceName = "controller",
    predictor: str | Path | None = None,
    predictor_kwargs: dict[str, Any] | None = None,
    freeze_predictor: bool = True,
    answer_decimals: int = 4,
    preset: str = "gpt2_pre",
    **fields: Any,
) -> GPT:
    """A GPT whose hidden state is mixed with the results of a DAG; with dag_depth = 0 the plain GPT, bit for bit.

    dag_depth: steps of the controller; with plan_source="predictor" any positive number switches the DAG on, since a
    plan has as many steps as the expression.
    gate_mode, gate_keep: see `DagGPT` and `GateMixer`.
    plan_source: "controller" chooses operands and operations itself, from the language-model loss alone; "predictor"
    reads the expression before an "=" with a network trained in phase 1 and lets its value be known from there on.
    predictor: the run or checkpoint folder of that network, see `load_predictor`; predictor_kwargs: its architecture
    instead, where its weights come later (a checkpoint of the whole holds them).
    preset, fields: of `GPTConfig`.
    """
    if dag_depth < 0:
        raise ValueError(f"dag_depth must be 0 (a plain GPT) or positive, got {dag_depth}")
    if dag_depth == 0:
        return gpt(vocab_size, context_length, preset, **fields)
    config = GPTConfig.from_preset(preset, vocab_size=vocab_size, context_length=context_length, **fields)
    own: dict[str, Any] = {"dag_depth": dag_depth, "gate_mode": gate_mode, "gate_keep": gate_keep}
    own |= {"plan_source": plan_source, "predictor": None, "predictor_kwargs": None}
    if plan_source == "controller":
        if predictor is not None or predictor_kwargs is not None:
            raise ValueError('a predictor was given, but plan_source is "controller"; set plan_source=predictor')
        make_source = partial(Controller, steps=dag_depth)
    elif plan_source == "predictor":
        own |= {"freeze_predictor": freeze_predictor, "answer_decimals": answer_decimals}
        read = partial(predictor_of, predictor, predictor_kwargs)
        make_source = lambda config: PlanSource(config, read(), answer_decimals, freeze_predictor)
    else:
        raise ValueError(f"plan_source is controller or predictor, got {plan_source!r}")
    model = DagGPT(config, make_source, gate_mode, gate_keep)
    if isinstance(model.dag.source, PlanSource):
        own["predictor_kwargs"] = model.dag.source.predictor.config.to_dict()
    model.rebuild_kwargs = own
    return model


gpt_dag.accepts = GPTConfig  # ty: ignore[missing-attribute]  # the config checker reads valid keywords from here
gpt_dag.fixed = ("dag_depth", "gate_mode", "plan_source")  # ty: ignore[missing-attribute]  # of a resumed run


def from_gpt(model: GPT, **kwargs: Any) -> GPT:
    """The same GPT, weights and all, with a DAG whose parameters are new; kwargs: of `gpt_dag`, but not of GPTConfig.

    What `init_from` does with GPT-2 or any plain GPT. A GPT that has a DAG already keeps it: ValueError if another one
    is asked for.
    """
    if isinstance(model, DagGPT):
        return _same_dag(model, kwargs)
    made = gpt_dag(**{**model.config.to_dict(), **kwargs})
    missing, unexpected = made.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("dag.") for name in missing), (missing, unexpected)
    if isinstance(made, DagGPT):
        fresh = sum(parameter.numel() for parameter in made.dag.parameters())
        made.notes = [f"the DAG is new: {len(missing)} tensors with {fresh:,} parameters (dag.*)"]
    return made.train(model.training)


def _same_dag(model: DagGPT, kwargs: dict[str, Any]) -> DagGPT:
    wrong = [
        f"{key}: it has {model.rebuild_kwargs.get(key)!r}, asked for {value!r}"
        for key, value in kwargs.items()
        if value != model.rebuild_kwargs.get(key, value)
    ]
    if wrong:
        raise ValueError(f"these weights come with a DAG of their own ({'; '.join(wrong)}); leave its settings out")
    return model


gpt_dag.from_gpt = from_gpt  # ty: ignore[missing-attribute]  # see gpt_core.training.initial_model
