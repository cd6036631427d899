"""Muon, NorMuon and AdamW in one optimizer, on one process or many: the same mathematics everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from gpt_kernels import polar_express
from gpt_optim.buckets import state_dtype
from gpt_optim.options import alike, check_group
from gpt_optim.ranks import Ranks, local_part
from gpt_optim.rows import row_buckets
from gpt_optim.sparse_rows import SparseRows
from gpt_optim.stacks import stack_of
from gpt_optim.state import load_state
from gpt_optim.ties import Tie, check_ties
from gpt_optim.units import AdamWUnit, MatrixUnit, Orthogonalize, Unit


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer for a whole model; each group's `kind` chooses its rule.

    - "muon": momentum, orthogonalised (Jordan et al. 2024, kellerjordan.github.io/posts/muon). Takes matrices; a
      parameter of more than two dimensions holds one for each leading index.
    - "normuon": then rows rescaled to equal mean squares over time (Li et al. 2025, arXiv:2510.05491).
    - "adamw": AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Arguments are defaults for groups that do not say otherwise:

    lr, momentum, weight_decay, beta2 (NorMuon), betas and eps (AdamW): may change from step to step.
    nesterov: look ahead along the momentum.
    cautious: only entries that the update would shrink decay (Chen et al. 2025, arXiv:2510.12402).
    scale: how an update grows with its matrix: "original" √max(1, rows/columns); "match_rms_adamw"
        0.2·√max(rows, columns), for AdamW's learning rates (arXiv:2502.16982); "spectral_unclamped" √(rows/columns).
    scale_decay: decay by lr·scale·weight_decay (speedrun, nanochat) instead of lr·weight_decay (torch).
    split: the rows of each matrix fused in a weight, e.g. (d, d, d) for queries, keys and values; updated apart.
    transposed: the weight is stored (in, out), as in Hugging Face's GPT-2; split and scale refer to its transpose.
    squared_decay: decay by lr²·weight_decay, or what `scale_decay` makes of it, as the speedrun's rules do: with a
        falling rate the decay falls faster.
    matrix_rows: each parameter holds matrices of this many rows, one below the other; they are shared out one by one,
        which `split`, for matrices that belong together, does not do.
    rate_factors: factors of the matrices' scale, in turn: (1, 2) doubles that of every second matrix of a bank.
    narrow: round momentum to bfloat16 before it is orthogonalised, and the update after every operation (speedrun).
    low_bits: keep 16 more bits of bfloat16 matrices (see below); False updates them in bfloat16.
    raw_eps: AdamW's eps stands beside √v before its bias is corrected (speedrun), not after (torch, the paper).
    sparse: few rows of AdamW's gradients are not zero, as in an embedding's: only these are sent around (ZeRO-2).
    every: update at every n-th step only; until then gradients add up in `.grad`, and `zero_grad` leaves them. They
        are no part of `state_dict()`: save after a multiple of `every` steps.
    orthogonalize: [..., M, N] -> the same shape, all singular values near 1.
    clip_muon: `clip_grad_norm_` scales the gradients of "muon" and "normuon" too; by default only AdamW's (see there).
    compile: compile the update rules; changing rates does not compile again. Where torch cannot, they run eagerly.
    ties: pairs of parameters that are trained as one (`Tie`).
    reduce_order, work_order: names of all groups, in the order in which averaging their gradients is launched, and in
        which they are updated; unless given, AdamW's are updated first, and matrices reduced first.

    process_group: share state and work among these processes (ZeRO); None is one process. With gradients="local" each
    process has those of its own batches, and `step` averages them: no DistributedDataParallel (ZeRO-2). "averaged":
    they are equal everywhere already (ZeRO-1 behind DDP). Parameters may instead be DTensors, sharded by FSDP2's
    `fully_shard`; then no group is given. In every case weights are the same as on one process up to rounding.

    bfloat16 parameters: state is float32, and Muon's and NorMuon's weights have 16 more bits in it. A parameter without
    a gradient has a zero gradient. All state is allocated here, with equal keys on every process: `state_dict()` can
    be given to torch.distributed.checkpoint as it is, which also fits it to another number of processes.

    ValueError: an unknown option, a value out of range, or a parameter that a rule cannot take.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        *,
        kind: Literal["muon", "normuon", "adamw"] = "muon",
        cautious: bool = False,
        scale: Literal["original", "match_rms_adamw", "spectral_unclamped"] = "original",
        scale_decay: bool = False,
        squared_decay: bool = False,
        split: Sequence[int] | None = None,
        matrix_rows: int | None = None,
        rate_factors: Sequence[float] | None = None,
        transposed: bool = False,
        narrow: bool = False,
        low_bits: bool = True,
        beta2: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        raw_eps: bool = False,
        sparse: bool = False,
        every: int = 1,
        orthogonalize: Orthogonalize = polar_express,
        compile: bool = False,
        clip_muon: bool = False,
        process_group: dist.ProcessGroup | None = None,
        gradients: Literal["local", "averaged"] = "local",
        ties: Sequence[Tie] = (),
        reduce_order: Sequence[str] | None = None,
        work_order: Sequence[str] | None = None,
    ):
        if gradients not in ("local", "averaged"):
            raise ValueError(f"gradients must be 'local' or 'averaged', got {gradients!r}")
        self.orthogonalize, self.compile, self.process_group = orthogonalize, compile, process_group
        self.averaged, self.clip_muon = gradients == "averaged", clip_muon
        self._units: list[Unit] = []
        self._norm: Tensor | None = None
        self.ties: list[Tie] = []
        self.reduce_order: Sequence[str] | None = None
        self.work_order: Sequence[str] | None = None
        options: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        options |= {"kind": kind, "cautious": cautious, "scale": scale, "scale_decay": scale_decay}
        options |= {"split": split, "transposed": transposed, "beta2": beta2, "betas": betas, "eps": eps}
        options |= {"squared_decay": squared_decay, "matrix_rows": matrix_rows, "rate_factors": rate_factors}
        options |= {"narrow": narrow, "low_bits": low_bits, "raw_eps": raw_eps}
        options |= {"sparse": sparse, "every": every}
        super().__init__(params, options)
        check_ties(ties, self._units)
        self.ties = list(ties)
        self.reduce_order, self.work_order = (self._check_order(order) for order in (reduce_order, work_order))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if param_group.get("kind") == "adamw" and self.defaults["kind"] != "adamw" and "lr" not in param_group:
            raise ValueError(
                f"a group of kind adamw needs an lr of its own, since {self.defaults['lr']} is the matrices': write "
                '{"kind": "adamw", "lr": 3e-4} or default_rules(model, adamw={"lr": 3e-4})'
            )
        if self.work_order is not None or self.reduce_order is not None:
            raise ValueError("the order of groups is fixed when the optimizer is built: give it all groups then")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group, self.defaults)
            group.setdefault("step", 0)
            units = self._units_of(group)
        except ValueError:
            self.param_groups.pop()
            raise
        self._units += units

    def _units_of(self, group: dict[str, Any]) -> list[Unit]:
        units: list[Unit] = []
        for params in alike(group["params"], by_shape=group["kind"] != "adamw"):
            ranks = Ranks(self.process_group, local_part(params[0]).device.type)
            if group["kind"] == "adamw":
                shared = SparseRows if group["sparse"] and not self.averaged else None
                buckets = row_buckets(params, ranks, self.averaged, shared)
                units += [AdamWUnit(bucket, group, self.state, self.compile) for bucket in buckets]
            else:
                stack = stack_of(params, ranks, self.averaged, group["matrix_rows"])
                units.append(MatrixUnit(stack, group, self.state, self.orthogonalize, self.compile))
        return units

    def _check_order(self, order: Sequence[str] | None) -> list[str] | None:
        names = [group.get("name") for group in self.param_groups]
        if order is None:
            return None
        if sorted(map(str, names)) != sorted(order) or None in names:
            raise ValueError(f"an order names every group exactly once: got {list(order)} for groups {names}")
        return list(order)

    def _due(self) -> list[Unit]:
        """The units of this step, in the order of their work.

        AdamW's first, unless said otherwise: their results travel while matrices are orthogonalised.
        """
        due = [unit for unit in self._units if (unit.group["step"] + 1) % unit.group["every"] == 0]
        following = {tie.follower for tie in self.ties if self._holds(tie)}
        due = [unit for unit in due if not following.intersection(unit.bucket.params)]
        if (order := self.work_order) is not None:
            return sorted(due, key=lambda unit: order.index(unit.group["name"]))
        return sorted(due, key=lambda unit: isinstance(unit, MatrixUnit))

    def _holds(self, tie: Tie) -> bool:
        return tie.holds(self._unit_of(tie.follower).group["step"])

    def _unit_of(self, parameter: Tensor) -> Unit:
        return next(unit for unit in self._units if any(p is parameter for p in unit.bucket.params))

    @torch.no_grad()
    def reduce_gradients(self) -> None:
        """Launch the averaging of gradients over the processes; `step` does it where nobody did. Collective.

        The parameters' own gradients are gone then: they are in the optimizer, until the step or `zero_grad`.
        """
        due = self._due()
        for tie in self.ties:
            if self._holds(tie) and self._unit_of(tie.leader) in due:
                tie.collect()
        if (order := self.reduce_order) is not None:
            due = sorted(due, key=lambda unit: order.index(unit.group["name"]))
        else:
            due.reverse()  # the matrices' first: theirs are the largest, and needed last
        for unit in due:
            unit.bucket.start()

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale AdamW's gradients of this step by min(1, max_norm / (norm + 1e-6)), after averaging; 0 only measures.

        Returns `norm`, that of all gradients before, 0-d and equal on every process. Muon's and NorMuon's gradients
        keep their size: it cancels when they are orthogonalised, so that a factor only re-weighs the step in the
        momentum, where a tiny one makes it count for nothing. With `clip_muon` they are scaled all the same.

        Collective. If the norm is not finite, skip the step and call `zero_grad`, which then clears everything.
        ValueError: a negative `max_norm`.
        """
        if not max_norm >= 0:
            raise ValueError(f"max_norm must be at least 0, got {max_norm}")
        self.reduce_gradients()
        due = self._due()
        buckets = [unit.bucket for unit in due]
        gradients = [bucket.gradients() for bucket in buckets]
        everything = [p for group in self.param_groups for p in group["params"]]
        # One dtype on all processes, whatever they own: float32 or what is wider.
        dtype = max((state_dtype(p) for p in everything), key=lambda t: t.itemsize)
        zero = torch.zeros((), dtype=dtype, device=local_part(everything[0]).device)
        total = _sum_of_squares([g for _, common in gradients for g in common], zero)
        for group in dict.fromkeys(bucket.ranks.group for bucket in buckets):
            held = [ours for bucket, (ours, _) in zip(buckets, gradients, strict=True) if bucket.ranks.group is group]
            part = _sum_of_squares([g for ours in held for g in ours], zero)
            if group is not None:
                dist.all_reduce(part, group=group)
            total = total + part
        norm = total.sqrt()
        self._norm = norm
        clipped = [gradients[i] for i, unit in enumerate(due) if self.clip_muon or unit.group["kind"] == "adamw"]
        held = [g for ours, common in clipped for g in (*ours, *common)]
        if max_norm and held:
            torch._foreach_mul_(held, (max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @property
    def clipping(self) -> str:
        """Which gradients `clip_grad_norm_` scales, in words."""
        if self.clip_muon or all(group["kind"] == "adamw" for group in self.param_groups):
            return "all gradients"
        return "AdamW's gradients, not Muon's (clip_muon=true: all)"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average, update, and wait until every process has the new weights. Collective."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.reduce_gradients()
        due = self._due()
        for unit in due:
            unit.bucket.gradients()
            unit.update()
        tied = [tie for tie in self.ties if self._holds(tie) and self._unit_of(tie.leader) in due]
        leading = {tie.leader for tie in tied}
        for unit in sorted(due, key=lambda unit: leading.isdisjoint(unit.bucket.params)):
            unit.bucket.finish()  # leaders first: the others' results travel while these are copied
            for tie in tied:
                if tie.leader in set(unit.bucket.params):
                    tie.publish()
        self._count_step()
        self._norm = None
        return loss

    def _count_step(self) -> None:
        for tie in self.ties:
            unit = self._unit_of(tie.follower)
            if isinstance(unit, AdamWUnit) and unit.group["step"] == tie.until:
                tie.part(self.state, unit)
        for group in self.param_groups:
            group["step"] += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients that the last step used; groups that wait for their turn (`every`) keep adding up.

        A norm that was not finite and no `step` since: the step is skipped. All are cleared, and it counts, so that
        turns and ties stay with the numbers of the caller's steps. Collective then, where it is the last one of a tie.
        """
        skipped = self._norm is not None and not bool(self._norm.isfinite())
        if skipped:
            self._count_step()
        for group in self.param_groups:
            if group["step"] % group["every"] and not skipped:
                continue
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.detach_().zero_()
        for unit in self._units:
            unit.bucket.forget()
        self._norm = None

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: build an equal one and load_state_dict(state_dict())"
        )

    def expected_state_bytes(self) -> int:
        """Bytes of this process's state, from the parameters' shapes and the number of processes."""
        return sum(unit.expected_bytes() for unit in self._units)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an equal optimizer on as many processes.

        From another number of processes: `torch.distributed.checkpoint.load` into this optimizer's own state_dict
        first. ValueError: the groups, keys or shapes differ.
        """
        load_state(self, state_dict)


def _sum_of_squares(tensors: list[Tensor], zero: Tensor) -> Tensor:
    """In the dtype of `zero`, which is returned, as a copy, if there are none."""
    if not tensors:
        return zero.clone()
    return torch.stack(torch._foreach_norm(tensors, dtype=zero.dtype)).square().sum()
