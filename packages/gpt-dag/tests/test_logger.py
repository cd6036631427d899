"""What DAGLogger says, that it says it of the pass it was asked about, and that it leaves no trace of itself."""

import math
from contextlib import nullcontext

import pytest
import torch

from gpt_core.distributed import Distributed
from gpt_core.training import BatchPlan, ModelWithLoss, TrainState, amp_grad_scaler, train
from gpt_core.training.config import LoggingConfig
from gpt_dag import DAGLogger, answer_loss, answers, gpt_dag
from gpt_dag.gpu import gpu_statistics
from gpt_dag.models.trace import OPERATIONS, PlanValues
from gpt_dag.models.trace_statistics import node_statistics
from gpt_dag.tokens import WordTokenizer

WORDS = WordTokenizer()
B, T, DEPTH = 2, 7, 2


def build(**kwargs):
    torch.manual_seed(0)
    return gpt_dag(WORDS.vocab_size, 48, **{"dag_depth": DEPTH, "n_layer": 1, "n_head": 2, "n_embd": 16, **kwargs})


def ids():
    return torch.randint(3, WORDS.vocab_size, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def logged():
    """A model after one tracked step, and its logger."""
    model, logger = build(), DAGLogger()
    logger.setup_gradient_tracking(model)
    model(ids()).logsumexp(-1).sum().backward()
    return model, logger


def test_every_group_of_figures_is_there(logged):
    model, logger = logged
    figures = logger.get_wandb_logging_dict(model, {"train/loss": 1.5})
    assert figures["train/loss"] == 1.5 and all(isinstance(value, float) for value in figures.values())
    assert all(math.isfinite(value) for value in figures.values())
    assert 0 <= figures["gate/min"] <= figures["gate/mean"] <= figures["gate/max"] <= 1
    assert figures["gate/open_ratio"] == 0 == figures["gate/close_to_zero_ratio"], "it starts at 0.12"
    for name in ("hidden", "dag_sem", "fused", "original_hidden", "dag_hidden", "dag_to_orig_ratio", "final_values"):
        assert figures[f"norm/{name}"] > 0
    assert figures["norm/hidden"] == pytest.approx(4, rel=0.02), "√16 after a norm"
    for group in ("op_grad", "grad/op", "op_probs"):
        assert {f"{group}/{name}" for name in (*OPERATIONS, "sub", "mul", "div", "id")} <= figures.keys()
        assert figures[f"{group}/subtract"] == figures[f"{group}/sub"]
    assert sum(figures[f"op_probs/{name}"] for name in OPERATIONS) == pytest.approx(1)
    assert figures["op_mutual_info"] == pytest.approx(figures["op_diversity"] - 1 + figures["op_sharpness"], abs=1e-6)
    for name in ("dag_output_norm", "gate_w_d", "dag_final_values_norm"):
        assert figures[f"grad/{name}"] > 0
    attended = sum(figures[f"dag_attn/operand1_node{i}"] for i in range(T + DEPTH - 1))
    assert attended == pytest.approx(1, abs=1e-5)
    assert figures["gpu/available"] in (0.0, 1.0)


def test_gradients_are_those_of_the_pass(logged):
    """op_grad: the mean gradient by the probabilities, over batch, positions and steps."""
    model, logger = logged
    figures = logger.compute_log_statistics(model)
    again = build()
    again.tracing = True
    out = again(ids())
    wanted = torch.autograd.grad(out.logsumexp(-1).sum(), [*again.trace.nodes.op_probs, again.trace.dag])
    mean = torch.stack(wanted[:-1]).mean((0, 1, 2))
    for name, value in zip(OPERATIONS, mean.tolist(), strict=True):
        assert figures[f"op_grad/{name}"] == pytest.approx(value, rel=1e-4, abs=1e-9)
    assert figures["grad/dag_output_norm"] == pytest.approx(float(wanted[-1].norm()), rel=1e-5)


def test_setting_up_twice_watches_once(logged):
    model, logger = logged
    before = (len(model._forward_hooks), len(logger._handles))
    logger.setup_gradient_tracking(model)
    logger.update_gradient_tracking(model)
    assert (len(model._forward_hooks), len(logger._handles)) == before
    model(ids()).sum().backward()
    assert (len(model._forward_hooks), len(logger._handles)) == before, "the next pass replaces the last one"
    logger.clear_gradient_hooks()
    assert not model._forward_hooks and not logger._handles and not model.tracing and model.trace is None


def test_the_timeline_has_a_row_per_token(logged):
    model, logger = logged
    details = logger.get_detailed_node_values(model, row=1)
    assert (details["sequence_length"], details["batch_size"], details["scratch_nodes"]) == (T, B, DEPTH)
    values = details["values_per_token"]
    assert len(values) == T == len(details["aggregated_per_token"]) and all(len(row) == DEPTH for row in values)
    nodes = model.trace.nodes
    assert values[3][1] == pytest.approx(float((nodes.sign * nodes.log.exp())[1, 3, 1].detach()))
    assert details["aggregated_per_token"][3] == pytest.approx(sum(values[3]) / DEPTH)
    assert logger.get_node_values_list(model) == logger.get_detailed_node_values(model)["values_per_token"]
    text = logger.format_console_logging(model, WORDS.decode, ids())
    assert len(text.splitlines()) == 1 + T and repr(WORDS.decode([int(ids()[0, 2])])) in text


def test_negative_values_are_logged_negative_and_missing_ones_not_at_all():
    sign = torch.tensor([[[-1.0], [-1.0], [1.0], [1.0]]], dtype=torch.float64)
    log = torch.tensor([[[2.0], [1.0], [0.0], [650.0]]], dtype=torch.float64)
    valid = torch.tensor([[[True], [True], [True], [False]]])
    figures = node_statistics(PlanValues(sign, log, valid))
    assert float(figures["node/result/p5"]) == pytest.approx(-math.exp(2))
    assert float(figures["node/result/median"]) == pytest.approx(-math.e)
    assert float(figures["node/result/mean"]) == pytest.approx((1 - math.e - math.exp(2)) / 3)
    assert float(figures["node/valid_ratio"]) == 0.75
    nothing = node_statistics(PlanValues(sign, log, torch.zeros_like(valid)))
    assert float(nothing["node/result/median"]) == 0 == float(nothing["node/valid_ratio"])


def test_what_is_missing_is_named():
    model, logger = build(), DAGLogger()
    with pytest.raises(RuntimeError, match=r"model\.trace is missing"):
        logger.compute_log_statistics(model)
    logger.setup_gradient_tracking(model)
    out = model(ids())
    with pytest.raises(RuntimeError, match=r"no gradient of trace\.dag"):
        logger.compute_log_statistics(model)
    out.sum().backward()
    model.zero_grad()
    with pytest.raises(RuntimeError, match=r"model\.dag\.gate\.map\.weight\.grad"):
        logger.compute_log_statistics(model)


def test_a_pass_that_only_made_hidden_states_is_followed_when_asked_for():
    model, logger = build(), DAGLogger()
    logger.setup_gradient_tracking(model)
    model.hidden(ids()).sum().backward()
    with pytest.raises(RuntimeError, match=r"call update_gradient_tracking\(model\)"):
        logger.compute_log_statistics(model)
    hidden = model.hidden(ids())
    logger.update_gradient_tracking(model)
    hidden.sum().backward()
    assert logger.compute_log_statistics(model)["grad/dag_output_norm"] > 0


def test_values_without_gradients_need_no_backward_pass():
    model, logger = build().eval(), DAGLogger()
    model.tracing = True
    with torch.no_grad():
        model(ids())
    figures = logger.compute_log_statistics(model)
    assert "gate/mean" in figures and not any(name.startswith(("grad/", "op_grad/")) for name in figures)


def test_on_a_cpu_a_gpu_is_not_available():
    assert gpu_statistics("cpu") == {"gpu/available": 0.0}


class Said:
    def __init__(self):
        self.logged, self.warnings = [], []

    def log(self, step, metrics):
        self.logged.append((step, metrics))

    def warning(self, message):
        self.warnings.append(message)


def run(descent, model, steps, hooks):
    splits = answers(48, 4, seed=1, max_ops=1, prefetch=0, styles=("symbols",))
    state = TrainState(
        model,
        descent(model.parameters(), 1e-3),
        amp_grad_scaler(grad_clip=1.0, dtype=torch.float32, device_type="cpu"),
        splits.train,
    )
    loss = answer_loss()
    return train(
        state,
        ModelWithLoss(model, loss),
        loss=loss,
        plan=BatchPlan(4, 1, 1, 48),
        max_steps=steps,
        distributed=Distributed(),
        autocast=nullcontext,
        hooks=hooks,
        schedule=lambda step: 1.0,
    )


def test_a_run_logs_the_dag_of_its_model_as_often_as_the_loss(descent):
    model, said = build(), Said()
    run(descent, model, 5, model.hooks(said, LoggingConfig(log_every=2)))
    assert [step for step, _ in said.logged] == [2, 4] and not said.warnings
    for _, figures in said.logged:
        assert figures["perf/tokens_per_s"] == pytest.approx(48 * figures["perf/examples_per_s"])
        assert figures["perf/examples_per_s"] > 0 and "op_grad/add" in figures and "gate/mean" in figures
    assert not model.tracing and model.trace is None and not model._forward_hooks


def test_a_run_without_a_trace_is_warned_of_once(descent):
    """As under torch.compile, which runs a forward of its own."""
    model, said = build(), Said()
    model.hidden = lambda ids, **_: type(model).__mro__[1].hidden(model, ids)
    run(descent, model, 4, model.hooks(said, LoggingConfig(log_every=1)))
    assert not said.logged and len(said.warnings) == 1 and "compile" in said.warnings[0]
