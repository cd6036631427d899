"""Runs of a scaling study that nobody trained: rows, run folders and logs with known optima."""

import json
import math

HEADER = """Parameter counts:
wte                     : 25,165,824
value_embeds            : 0
lm_head                 : 25,165,824
transformer_matrices    : 84,934,656
scalars                 : 38
total                   : 135,266,342
Estimated FLOPs per token: 8.546550e+08
Calculated number of iterations from target FLOPs: 20
Total number of training tokens: 10,485,760
Total batch size 524,288 => gradient accumulation steps: 1
Step 00020 | Validation bpb: 0.912345
Step 00020 | CORE metric: 0.1234
step 00019/00020 (95.00%) | loss: 3.1 | lrm: 1.00 | dt: 512.00ms | tok/sec: 1,024,000 | bf16_mfu: 41.00 | epoch: 1
"""
"""A log as nanochat prints it."""


def write_run(
    folder,
    *,
    budget,
    depth,
    seed=1,
    steps=20,
    batch=2048,
    bpb=1.5,
    ended_at=None,
    status="completed",
    speaks=True,
    steps_by="target_flops",
):
    """A run folder's metrics.jsonl; ended_at: the step of its last evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    width = 64 * depth
    head, blocks = 512 * width, 12 * depth * width**2
    table = f"SCALING depth {depth}\n  wte      {head:,}\n  lm_head   {head:,}\n  transformer_matrices   {blocks:,}\n"
    table += f"  total   {2 * head + blocks:,}\nTotal training tokens: {steps * batch:,}"
    config = {
        "scaling": {"target_flops": budget, "depth": depth, "steps_by": steps_by},
        "general": {"seed": seed},
        "model": {"module_kwargs": {"n_layer": depth, "n_embd": width}},
        "optimizer": {"module_kwargs": {"rate_factor": 0.5}},
    }
    constants = {"tokens_per_iter": batch, "flops_per_token": budget / steps / batch}
    start = {
        "event": "start",
        "time": 0,
        "run_name": folder.name,
        "max_steps": steps,
        "config": config,
        "mfu": constants,
    }
    last = steps if ended_at is None else ended_at
    records = [
        start,
        *([{"event": "info", "time": 0, "message": table}] if speaks else []),
        {"step": 10, "time": 1, "train/step_time_ms": 100.0, "train/mfu": 0.9},
        {"step": 20, "time": 2, "train/step_time_ms": 300.0, "train/mfu": 0.4},
        {"event": "eval", "step": 10, "time": 2, "val/bits_per_byte": 9.0, "val/loss": 9.0},
        {"event": "eval", "step": last, "time": 3, "val/bits_per_byte": bpb, "val/loss": bpb, "val/train_cpu_s": 3.0},
        *([{"event": "end", "time": 4, "status": status}] if status else []),
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def vibe_log(*, steps="2,232", last=2232, bpb="0.8972"):
    """Lines of VibeNanoChat, as they stand in the spec that both sides keep."""
    total = steps.replace(",", "")
    return f"""Model parameters: 162,201,600
Calculated number of iterations from target FLOPs: {steps}
Total batch size: 524,288
FLOPs per token: 854,654,976
VALIDATION | Step   100 | Val Loss: 3.1 | BPB: 1.01 | Time: 2.00s
[Epoch 1/1] [Step     5/{total}] (  0.2%) | Loss: 9.1 | LR: 6e-4 | Speed: 512.0K tok/s | MFU: 3.00% | Time: 9.02s
[Epoch 1/1] [Step    20/{total}] (  0.5%) | Loss: 3.1 | LR: 6e-4 | Speed: 512.0K tok/s | MFU: 41.00% | Time: 1.02s
VALIDATION | Step  {last} | Val Loss: 2.9 | BPB: {bpb} | Time: 2.00s
"""


def bowl(size, best, lowest=0.9, steepness=0.1):
    """Bits per byte of a size where `best` has the `lowest`: a parabola in log10."""
    return lowest + steepness * math.log10(size / best) ** 2
