"""Timing of cases, and the ceiling of the device they run on."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .case import BOTH, FORWARD, Case, Setting

PEAK_FLOPS = {  # dense, 16-bit floats, as published
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}
FLUSH_BYTES = {"cuda": 256 * 2**20, "cpu": 64 * 2**20}
"""Written between runs, so that none finds its arguments in a cache."""

PASSES = (FORWARD, BOTH)


@dataclass(frozen=True)
class Ceiling:
    """What the device can do at most; None where nobody knows."""

    name: str
    bytes_per_second: float
    """Of a copy of 256 MiB (64 MiB on a CPU), read and written, measured now."""

    flops_per_second: float | None
    """The published peak of 16-bit matrix products, known for some GPUs."""


@dataclass(frozen=True)
class Row:
    """One side of one case, measured or not."""

    op: str
    shape: str
    dtype: str
    direction: str
    side: str
    backend: str
    milliseconds: float | None = None
    gigabytes_per_second: float | None = None
    teraflops_per_second: float | None = None
    percent_of_ceiling: float | None = None
    error: float | None = None
    """Relative norm of the difference from the reference's output in float64 (in the same dtype for large cases)."""

    peak_megabytes: float | None = None
    """Allocated at most, beyond what was before; on CUDA."""

    goals: str = ""
    """Of `gpt_kernels`: what it is to reach, and whether it did."""

    note: str = ""


def ceiling_of(device: torch.device) -> Ceiling:
    source = torch.empty(FLUSH_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds({"copy": lambda: target.copy_(source)}, device, 20)["copy"]
    if device.type != "cuda":
        return Ceiling("CPU", 2 * source.numel() / seconds, None)
    name = torch.cuda.get_device_name(device)
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    return Ceiling(name, 2 * source.numel() / seconds, peak)


def median_seconds(sides: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median time of each, taken in turn, after two runs to warm up: of the stream on a GPU; CPU time of all threads on
    a CPU, which other processes disturb least."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    flush = torch.empty(FLUSH_BYTES[device.type], dtype=torch.uint8, device=device)
    names = list(sides)
    for repeat in range(-2, repeats):
        start_at = repeat % max(len(names), 1)  # nobody always follows the same one
        for name in names[start_at:] + names[:start_at]:
            run = sides[name]
            flush.zero_()
            if device.type == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                run()
                end.record()
                end.synchronize()
                taken = start.elapsed_time(end) / 1000
            else:
                began = time.process_time()
                run()
                taken = time.process_time() - began
            if repeat >= 0:
                seconds[name].append(taken)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(case: Case, setting: Setting, ceiling: Ceiling, *, compile: bool, repeats: int) -> Iterator[Row]:
    """A row for each side and direction of a case."""
    from .goals import judge

    sides: dict[str, Callable[..., Tensor] | str] = {"reference": case.reference}
    if compile:  # each case anew: from its second shape on, torch would compile a function for any shape
        torch.compiler.reset()
        sides["compiled reference"] = torch.compile(case.reference, dynamic=False)
    else:
        sides["compiled reference"] = "--compile was not given"
    sides |= {"gpt_kernels": case.ours, **case.peers}
    if setting.device.type != "cuda":
        sides["triton"] = "no CUDA device"
    for direction, bytes_, flops in zip(
        PASSES, (case.bytes, case.bytes_both), (case.flops, case.flops_both), strict=True
    ):
        if not bytes_ and not flops:
            continue
        runs, notes, errors, peaks = {}, {}, {}, {}
        for name, function in sides.items():
            if isinstance(function, str):
                notes[name] = f"not measured: {function}"
                continue
            run = _runner(function, case.tensors, backward=direction == BOTH)
            try:
                errors[name] = _error(function, case)
                run()
                peaks[name] = _peak_megabytes(run, setting.device)
            except (RuntimeError, TypeError, ValueError, AttributeError, ImportError) as error:
                notes[name] = f"not measured: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
            else:
                runs[name] = run
        seconds = median_seconds(runs, setting.device, repeats)
        rows = []
        for name in sides:
            backend = case.backend if name == "gpt_kernels" else ""
            identity = (case.op, case.shape, str(setting.dtype)[6:], direction, name, backend)
            if name not in seconds:
                rows.append(Row(*identity, note=notes[name]))
                continue
            rate_bytes, rate_flops = bytes_ / seconds[name], flops / seconds[name]
            share = rate_bytes / ceiling.bytes_per_second if bytes_ else None
            if flops:
                share = rate_flops / ceiling.flops_per_second if ceiling.flops_per_second else None
            row = Row(
                *identity,
                milliseconds=1000 * seconds[name],
                gigabytes_per_second=rate_bytes / 1e9 if bytes_ else None,
                teraflops_per_second=rate_flops / 1e12 if flops else None,
                percent_of_ceiling=None if share is None else 100 * share,
                error=errors[name],
                peak_megabytes=peaks[name],
            )
            rows.append(row)
        goals = judge(case, rows, setting)
        for row in rows:
            yield dataclasses.replace(row, goals=goals) if row.side == "gpt_kernels" else row


def _peak_megabytes(run: Callable[[], object], device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _runner(function: Callable[..., Tensor], tensors: tuple[Tensor, ...], *, backward: bool) -> Callable[[], object]:
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return function(*tensors)

        return forward
    leaves = [tensor for tensor in tensors if tensor.requires_grad]
    with torch.no_grad():
        grad = torch.ones_like(function(*tensors))
    return lambda: torch.autograd.grad(function(*tensors), leaves, grad)


@torch.no_grad()
def _error(function: Callable[..., Tensor], case: Case) -> float:
    wide = sum(tensor.numel() for tensor in case.tensors) < 2**24
    exact = [tensor.double() if wide and tensor.is_floating_point() else tensor for tensor in case.tensors]
    expected = case.reference(*exact).double()
    return ((function(*case.tensors).double() - expected).norm() / expected.norm()).item()
