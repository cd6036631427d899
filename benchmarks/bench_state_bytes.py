"""Optimizer state per process at 4 processes: measured in memory against the formula, for zero1, zero2 and fsdp.

    uv run benchmarks/bench_state_bytes.py [--depth 6] [--width 384] [--processes 4]

The formula: AdamW 8 bytes a parameter, Muon 4, NorMuon 4 and one more float a row; divided by the number of processes,
rounded up to whole rows (AdamW) or whole matrices (Muon). Tensors of fewer than 1024 elements are not divided.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from math import ceil, prod
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from _bench import finish, table
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from gpt_core.models import GPT, GPTConfig
from gpt_optim.adamw import adamw
from gpt_optim.factories import muon, normuon

STRATEGIES = ("zero1", "zero2", "fsdp")
OPTIMIZERS = {"adamw": adamw, "muon": muon, "normuon": normuon}


def formula(shapes: dict[str, tuple[int, ...]], optimizer: str, strategy: str, processes: int) -> float:
    """Bytes of the process that has most, from names and shapes alone."""
    bytes_, stacks = 0.0, {}
    for name, shape in shapes.items():
        if optimizer != "adamw" and len(shape) == 2 and name.startswith("blocks."):
            stacks.setdefault((shape, "qkv" in name), []).append(name)
        elif strategy == "fsdp" or prod(shape) >= 1024:
            bytes_ += 8 * ceil(shape[0] / processes) * prod(shape[1:])
        else:
            bytes_ += 8 * prod(shape)
    for ((rows, columns), fused), names in stacks.items():
        per_matrix = rows * columns
        if optimizer == "normuon":
            per_matrix += rows if fused else max(rows, columns)  # fused: three squares
        bytes_ += 4 * per_matrix * ceil(len(names) / processes)
    return bytes_


def worker(rank: int, processes: int, folder: str, config: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes, init_method=f"file://{folder}/rendezvous")
    mesh = init_device_mesh("cpu", (processes,))
    measured = {}
    for name, factory in OPTIMIZERS.items():
        for strategy in STRATEGIES:
            model = GPT(GPTConfig(**config))
            if strategy == "fsdp":
                for module in (*model.blocks, model):
                    fully_shard(module, mesh=mesh)
                optimizer = factory(model)
            else:
                optimizer = factory(model, zero=1 if strategy == "zero1" else 2, process_group=dist.group.WORLD)
            ids = torch.randint(config["vocab_size"], (1, 8), generator=torch.Generator().manual_seed(rank))
            model(ids).square().mean().backward()
            optimizer.step()
            tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
            local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors if t.dim()]
            measured[f"{name} {strategy}"] = sum(t.untyped_storage().nbytes() for t in local)
    Path(folder, f"{rank}.json").write_text(json.dumps(measured))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--processes", type=int, default=4)
    args = parser.parse_args()
    config = {"n_layer": args.depth, "n_head": args.width // 64, "n_embd": args.width}
    config |= {"vocab_size": 2048, "context_length": 256}
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in GPT(GPTConfig(**config)).named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(worker, (args.processes, folder, config), args.processes, start_method="spawn")
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(args.processes)]
    rows, worst = [], 0.0
    for name in OPTIMIZERS:
        for strategy in STRATEGIES:
            expected = formula(shapes, name, strategy, args.processes)
            most = max(rank[f"{name} {strategy}"] for rank in ranks)
            least = min(rank[f"{name} {strategy}"] for rank in ranks)
            error = abs(most - expected) / expected
            worst = max(worst, error)
            rows.append([name, strategy, expected / 1e6, most / 1e6, least / 1e6, f"{error:.2%}"])
    print(f"{sum(prod(s) for s in shapes.values()):,} parameters, {args.processes} processes; megabytes per process\n")
    print(table(["optimizer", "strategy", "formula", "most", "least", "error"], rows))
    finish(worst_error=worst)


if __name__ == "__main__":
    main()
