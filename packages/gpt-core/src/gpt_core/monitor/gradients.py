"""Statistics of the gradients, measured on the device and fetched with a single synchronisation.

Call after unscaling and before clipping or zeroing: afterwards there is nothing left to measure.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

_LAYER = re.compile(r"^(?P<layer>.*?\.\d+)\.")


def gradient_stats(named_parameters: Iterable[tuple[str, Any]], *, layers: bool = True) -> dict[str, Any]:
    """Norms and values of all gradients; parameters without a gradient are skipped, {} if none has one.

    global_norm = √Σ‖gᵢ‖²; mean_norm, max_norm, min_norm over the norms of tensors; value_mean, value_std, value_min,
    value_max over all entries; `layers`: norm per block (`blocks.3`) or top-level module.

    Works on DTensors sharded over one mesh dimension (FSDP2): every rank must call it and gets the same numbers.
    """
    import torch

    named = [(name, parameter.grad) for name, parameter in named_parameters if parameter.grad is not None]
    if not named:
        return {}
    with torch.no_grad():
        table, counts = _statistics([grad for _, grad in named])
    squares, sums, minima, maxima = table
    norms = [math.sqrt(square) for square in squares]
    total, square_sum, number = math.fsum(sums), math.fsum(squares), sum(counts)
    stats: dict[str, Any] = {
        "global_norm": math.sqrt(square_sum),
        "mean_norm": math.fsum(norms) / len(norms),
        "max_norm": _largest(norms),
        "min_norm": -_largest([-norm for norm in norms]),
        "value_mean": total / number,
        "value_std": _std(square_sum, total, number),
        "value_min": -_largest([-value for value in minima]),
        "value_max": _largest(maxima),
    }
    if layers:
        by_layer: dict[str, float] = {}
        for (name, _), square in zip(named, squares, strict=True):
            by_layer[layer_of(name)] = by_layer.get(layer_of(name), 0.0) + square
        stats["layers"] = {name: math.sqrt(square) for name, square in by_layer.items()}
    return stats


def layer_of(parameter_name: str) -> str:
    """`blocks.3.attn.q.weight` -> `blocks.3`, `wte.weight` -> `wte`. Wrapper prefixes are dropped."""
    name = re.sub(r"(^|(?<=\.))(_orig_mod|module|_fsdp_wrapped_module)\.", "", parameter_name)
    match = _LAYER.match(name)
    return match["layer"] if match else name.partition(".")[0]


def _std(square_sum: float, total: float, number: int) -> float:
    if not math.isfinite(square_sum):
        return math.nan
    return math.sqrt(max(0.0, square_sum / number - (total / number) ** 2))


def _largest(values: list[float]) -> float:
    """The maximum, or nan if any value is nan (Python's `max` depends on the order)."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _statistics(grads: list[Any]) -> tuple[list[list[float]], list[int]]:
    """Per tensor: sum of squares, sum, minimum, maximum (4 lists), and the number of entries."""
    import torch

    local = [_local(grad) for grad in grads]
    # float32 accumulation of squares: fp16 gradients would overflow at 256.
    squares = torch.stack([norm.float() ** 2 for norm in torch._foreach_norm(local, 2, dtype=torch.float32)])
    sums = torch.stack([grad.sum(dtype=torch.float32) for grad in local])
    infinity = torch.full((), math.inf, device=local[0].device)
    minima, maxima = [], []
    for grad in local:
        low, high = torch.aminmax(grad) if grad.numel() else (infinity, -infinity)
        minima.append(low.float())
        maxima.append(high.float())
    table = torch.stack([squares, sums, torch.stack(minima), torch.stack(maxima)])
    _reduce_shards(table, grads)
    return table.tolist(), [grad.numel() for grad in grads]


def _local(grad: Any) -> Any:
    """The values this rank holds. Sparse gradients count by their stored entries."""
    grad = grad.to_local() if hasattr(grad, "to_local") else grad
    grad = grad.coalesce().values() if grad.is_sparse else grad
    return grad.detach()


def _reduce_shards(table: Any, grads: list[Any]) -> None:
    """Combine the shards of DTensors in place, one collective per kind of statistic and process group."""
    by_group: dict[Any, list[int]] = {}
    for index, grad in enumerate(grads):
        for dimension, placement in enumerate(getattr(grad, "placements", ())):
            if placement.is_partial():
                raise ValueError("gradient statistics: got a partially reduced DTensor, expected reduced gradients")
            if placement.is_shard():
                by_group.setdefault(grad.device_mesh.get_group(dimension), []).append(index)
    if not by_group:
        return
    import torch.distributed as dist

    for group, indices in by_group.items():
        part = table[:, indices]
        sums, extremes = part[:2].contiguous(), part[2:] * part.new_tensor([[-1.0], [1.0]])
        dist.all_reduce(sums, dist.ReduceOp.SUM, group=group)
        dist.all_reduce(extremes, dist.ReduceOp.MAX, group=group)
        table[:2, indices] = sums
        table[2:, indices] = extremes * part.new_tensor([[-1.0], [1.0]])
