"""DAGLogger: what the DAG of a model does while it trains, as plain floats under stable names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpt_core.monitor import Sinks
from gpt_core.training.state import Hook, TrainState

from .gpu import gpu_statistics
from .models.dag_gpt import DagGPT
from .models.trace import Selection, Trace
from .models.trace_statistics import (
    gate_statistics,
    node_statistics,
    node_values,
    norm_statistics,
    operation_statistics,
    per_operation,
)


class DAGLogger:
    """Measures the last forward and backward pass of a GPT with a DAG; a model without one gives {} everywhere.

    setup_gradient_tracking(model); loss.backward(); get_wandb_logging_dict(model); clear_gradient_hooks()

    Nothing is fetched from the device before a dict is asked for, and then once. A figure that should be there and is
    not raises RuntimeError naming the attribute: zeros would hide the failure.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._tracked: Trace | None = None
        self._gradients: dict[str, Tensor] = {}
        self._model: DagGPT | None = None

    def setup_gradient_tracking(self, model: nn.Module) -> None:
        """Keep the next training passes' tensors and watch their gradients. Calling it again changes nothing."""
        dag = dag_of(model)
        if dag is None or self._model is dag:
            return
        self.clear_gradient_hooks()
        self._model, dag.tracing, dag.trace = dag, True, None
        self._handles.append(dag.register_forward_hook(lambda module, inputs, output: self._follow(dag)))

    def update_gradient_tracking(self, model: nn.Module) -> None:
        """Watch the newest forward pass instead of an older one; passes after `setup_gradient_tracking` are already."""
        dag = dag_of(model)
        if dag is None:
            return
        self.setup_gradient_tracking(model)
        self._follow(dag)

    def clear_gradient_hooks(self) -> None:
        """Forget the pass and stop watching; the model is as it was before."""
        for handle in self._handles:
            handle.remove()
        if self._model is not None:
            self._model.tracing, self._model.trace = False, None
        self._handles, self._gradients = [], {}
        self._tracked = self._model = None

    def compute_log_statistics(self, model: nn.Module) -> dict[str, float]:
        """gate/, norm/, node/, and of a controller op_*, dag_entropy/, dag_attn/; after a backward pass also grad/ and
        op_grad/. One transfer from the device."""
        dag = dag_of(model)
        if dag is None:
            return {}
        trace = _trace_of(dag)
        figures = gate_statistics(trace.gate) | norm_statistics(trace) | node_statistics(trace.nodes)
        if isinstance(trace.nodes, Selection):
            figures |= operation_statistics(trace.nodes)
        if self._model is dag:
            figures |= self._gradient_statistics(dag)
        fetched = torch.stack([figure.double() for figure in figures.values()]).tolist()
        return dict(zip(figures, fetched, strict=True))

    def get_extra_vals(self, model: nn.Module) -> dict[str, float]:
        """`compute_log_statistics`, and the GPU's load and memory."""
        dag = dag_of(model)
        if dag is None:
            return {}
        return self.compute_log_statistics(model) | gpu_statistics(dag.embed.weight.device)

    def get_wandb_logging_dict(self, model: nn.Module, base_dict: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`base_dict` and everything known of the DAG, plain floats for any tracker."""
        return {**(base_dict or {}), **self.get_extra_vals(model)}

    def get_node_values_list(self, model: nn.Module) -> list[list[float | None]]:
        """[position][node] real values of the first row of the batch; None: no value there. [] without a DAG."""
        dag = dag_of(model)
        return [] if dag is None else _timeline(_trace_of(dag), 0)

    def get_detailed_node_values(self, model: nn.Module, row: int = 0) -> dict[str, Any]:
        """The timeline of one row: `values_per_token` as in `get_node_values_list`, `aggregated_per_token` (mean of the
        nodes that have a value), `scratch_nodes` (nodes per position), `sequence_length`, `batch_size`.

        With gate_mode="last" only the last position has nodes, and the timeline has one entry.
        """
        dag = dag_of(model)
        if dag is None:
            return {}
        trace = _trace_of(dag)
        timeline = _timeline(trace, row)
        return {
            "values_per_token": timeline,
            "aggregated_per_token": [_mean([v for v in values if v is not None]) for values in timeline],
            "scratch_nodes": trace.nodes.sign.shape[-1],
            "sequence_length": len(timeline),
            "batch_size": trace.nodes.sign.shape[0],
        }

    def format_console_logging(
        self, model: nn.Module, decode_fn: Callable[[list[int]], str], input_ids: Tensor | Sequence[int]
    ) -> str:
        """A line per token of the first row: its text and the values of its nodes. "" without a DAG."""
        dag = dag_of(model)
        if dag is None:
            return ""
        ids = torch.as_tensor(input_ids)
        ids = (ids[0] if ids.dim() == 2 else ids).tolist()
        timeline = self.get_node_values_list(model)
        rows = zip(ids[-len(timeline) :], timeline, strict=False)
        lines = [f"{decode_fn([i])!r:>16} | " + "  ".join(map(_number, values)) for i, values in rows]
        gate = _trace_of(dag).gate
        return "\n".join([f"gate mean {float(gate.detach().mean()):.3f}; values of the nodes at every token:", *lines])

    def _follow(self, dag: DagGPT) -> None:
        """Watch the gradients of the newest pass, once."""
        trace = dag.trace
        if trace is None or trace is self._tracked or not trace.dag.requires_grad:
            return
        del self._handles[1:]  # those of an older pass, whose graph is gone; the first watches the model
        self._tracked, self._gradients = trace, {}
        watched = {"dag": trace.dag, "hidden": trace.hidden}
        if isinstance(trace.nodes, Selection):
            watched["log"] = trace.nodes.log
            watched |= {f"op_probs[{s}]": probs for s, probs in enumerate(trace.nodes.op_probs)}
            watched |= {f"op_logits[{s}]": logits for s, logits in enumerate(trace.nodes.op_logits)}
        for name, tensor in watched.items():
            if tensor.requires_grad:
                self._handles.append(tensor.register_hook(lambda grad, name=name: self._keep(name, grad)))

    def _keep(self, name: str, grad: Tensor) -> None:
        self._gradients[name] = grad.detach()

    def _gradient_statistics(self, dag: DagGPT) -> dict[str, Tensor]:
        """{} before the backward pass of a pass that has none (evaluation); RuntimeError for one that lost its own."""
        trace = _trace_of(dag)
        if trace is not self._tracked and trace.dag.requires_grad:
            raise RuntimeError(
                "the pass in model.trace was not followed, as it came from model.hidden(ids): call "
                "update_gradient_tracking(model) between it and backward()"
            )
        if self._tracked is None:
            return {}
        figures: dict[str, Tensor] = {}
        output = self._gradient("dag")
        figures["grad/dag_output_norm"] = output.norm()
        figures["grad/dag_output_mean"], figures["grad/dag_output_std"] = output.mean(), output.std(correction=0)
        figures["grad/orig_hidden_mean"] = self._gradient("hidden").mean()
        weight = dag.dag.gate.map.weight.grad
        if weight is None:
            raise RuntimeError("no gradient in model.dag.gate.map.weight.grad: log between backward() and zero_grad()")
        gather = getattr(weight, "full_tensor", None)  # of a model sharded by FSDP2
        whole = gather() if gather else weight
        of_hidden, of_dag = whole.chunk(2, -1)
        figures["grad/gate_w_o"], figures["grad/gate_w_d"] = of_hidden.norm(), of_dag.norm()
        if isinstance(self._tracked.nodes, Selection):
            steps = range(len(self._tracked.nodes.op_probs))
            values, probs = self._gradient("log"), self._mean_over("op_probs", steps)
            figures["grad/dag_final_values_norm"] = values[..., -1].norm()
            figures["grad/dag_final_values_mean"] = values[..., -1].mean()
            figures |= per_operation("op_grad", probs) | per_operation("grad/op", probs)
            figures["grad/op_logits_mean"] = self._mean_over("op_logits", steps).mean()
        return figures

    def _mean_over(self, name: str, steps: range) -> Tensor:
        """(O,) mean gradient over batch, positions and steps."""
        return torch.stack([self._gradient(f"{name}[{s}]").mean((0, 1)) for s in steps]).mean(0)

    def _gradient(self, name: str) -> Tensor:
        if name not in self._gradients:
            raise RuntimeError(f"no gradient of trace.{name}: call backward() on a loss of the tracked forward pass")
        return self._gradients[name].float()


class LogDAG(Hook):
    """Logs the DAG of the model that is trained, at the steps that `log_every` names.

    The tensors of a pass are kept at those steps only. Gradients are those of the last micro-step on this rank,
    unclipped, and scaled as the loss is where float16 scales it.
    """

    def __init__(self, sinks: Sinks, log_every: int):
        self.sinks, self.log_every = sinks, log_every
        self.logger = DAGLogger()
        self._figures: dict[str, float] = {}
        self._told = False

    def on_start(self, state: TrainState) -> None:
        self._prepare(state)

    def on_gradients(self, state: TrainState) -> None:
        if (state.step + 1) % self.log_every:
            return
        if self._dag(state).trace is None:  # torch.compile runs another forward than the model's
            self._tell_once("the figures of the DAG are not logged: the compiled model keeps none of its tensors")
        else:
            self._figures = self.logger.get_wandb_logging_dict(state.model)
        self.logger.clear_gradient_hooks()

    def on_step(self, state: TrainState) -> None:
        if self._figures:
            last = state.last
            speed = {
                "perf/examples_per_s": last.tokens / self._dag(state).config.context_length / last.seconds,
                "perf/tokens_per_s": last.tokens / last.seconds,
                "perf/data_wait_frac": last.data_seconds / last.seconds,
            }
            self.sinks.log(state.step, self._figures | speed)
            self._figures = {}
        self._prepare(state)

    def on_end(self, state: TrainState) -> None:
        self.logger.clear_gradient_hooks()

    @staticmethod
    def _dag(state: TrainState) -> DagGPT:
        dag = dag_of(state.model)
        assert dag is not None, "only a GPT with a DAG offers this hook"
        return dag

    def _prepare(self, state: TrainState) -> None:
        if (state.step + 1) % self.log_every == 0:
            self.logger.setup_gradient_tracking(state.model)

    def _tell_once(self, message: str) -> None:
        if not self._told:
            self.sinks.warning(message)
        self._told = True


def dag_of(model: nn.Module) -> DagGPT | None:
    """The GPT with a DAG inside compilation and DDP wrappers; None for a model without a DAG."""
    while not isinstance(model, DagGPT):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return None
        model = inner
    return model


def _trace_of(dag: DagGPT) -> Trace:
    if dag.trace is None:
        raise RuntimeError(
            "model.trace is missing: set model.tracing (or setup_gradient_tracking) before a forward pass"
        )
    return dag.trace


def _timeline(trace: Trace, row: int) -> list[list[float | None]]:
    values, valid = node_values(trace.nodes)[row].tolist(), trace.nodes.valid[row].tolist()
    return [[v if ok else None for v, ok in zip(*pair, strict=True)] for pair in zip(values, valid, strict=True)]


def _mean(values: list[float]) -> float | None:
    return sum(value / len(values) for value in values) if values else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
