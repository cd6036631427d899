"""What `scaling` has decided, as a run says it at its start. Lines with a colon are read by apps/scaling."""

from __future__ import annotations

from gpt_core.scaling.resolve import Plan

GROUPS = ("wte", "position", "value_embeds", "lm_head", "transformer_matrices", "scalars")


def report(plan: Plan) -> str:
    """The table of a plan: parameters by group, FLOPs, batch, horizon, and what set each value."""
    lines = [f"SCALING depth {plan.depth}, {plan.width} channels, vocabulary {plan.vocab_size:,}"]
    lines += [*_parameters(plan), *_batch(plan), *_horizon(plan), *_origins(plan)]
    return "\n".join(lines)


def _parameters(plan: Plan) -> list[str]:
    counts = plan.counts
    rows = [(name, getattr(counts, name)) for name in GROUPS]
    rows = [(name, count) for name, count in rows if count or name in ("wte", "lm_head", "transformer_matrices")]
    rows.append(("total", counts.total))
    lines = [f"  {name:<22}{count:>17,}" for name, count in rows]
    tied = "embedding and head are one matrix" if counts.tied else f"total with tied weights {counts.total_tied:,}"
    return [
        *lines,
        f"  N of scaling laws     {counts.scaling:>17,}  (blocks and head; {tied})",
        f"Model parameters: {counts.total:,}",
        f"FLOPs per token: {plan.flops_per_token:,}",
    ]


def _batch(plan: Plan) -> list[str]:
    step, sequences = plan.step, plan.step.tokens // plan.context_length
    processes = sequences // (step.device_batch_size * step.micro_steps)
    return [
        f"Total batch size: {step.tokens:,}",
        f"  = {step.micro_steps} micro-steps x {step.device_batch_size} sequences x {plan.context_length} tokens x "
        f"{processes} process{'es' if processes > 1 else ''}",
    ]


def _horizon(plan: Plan) -> list[str]:
    counts = plan.counts
    if plan.steps_by == "target_flops":
        lines = [f"Calculated number of iterations from target FLOPs: {plan.steps:,}"]
        lines.append(f"Target FLOPs: {plan.config.section('scaling').target_flops:g}")
    elif plan.steps_by == "param_data_ratio":
        lines = [f"Calculated number of iterations from target data:param ratio: {plan.steps:,}"]
    elif plan.steps_by == "epochs":
        lines = [f"Calculated number of iterations from epochs: {plan.steps:,}"]
    else:
        lines = [f"Using user-provided number of iterations: {plan.steps:,}"]
    lines += [
        f"Total training tokens: {plan.tokens:,}",
        f"Tokens : N ratio: {plan.tokens / counts.scaling:.2f} (N = blocks and head)",
        f"Tokens : parameters ratio: {plan.tokens / counts.total:.2f} (all parameters, Chinchilla's convention)",
        f"Total training FLOPs: {plan.flops:.6e}",
    ]
    known = plan.epochs is not None
    lines.append(f"Epochs of the data: {plan.epochs:.4f}" if known else "Epochs of the data: not known (a stream)")
    return lines


def _origins(plan: Plan) -> list[str]:
    """One line for each key that was set, and for each that was left as the user wrote it."""
    tree = plan.config.tree
    lines = []
    for key, why in plan.derived.items():
        value = tree
        for part in key.split("."):
            value = value[part]
        shown = f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        lines.append(f"  {key} = {shown}  <- {why}")
    return [*lines, *(f"  {key} stays {what}" for key, what in plan.kept.items())]
