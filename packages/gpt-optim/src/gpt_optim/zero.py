"""ZeRO-1 for any torch optimizer: each process keeps the state of, and updates, its part of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from gpt_optim.ranks import Ranks
from gpt_optim.state import RESHARD

WHOLE_TENSORS = (torch.optim.Adafactor, torch.optim.Muon, torch.optim.LBFGS, torch.optim.SparseAdam)
"""Their updates of a part are not the parts of their updates."""


class ZeroOne(torch.optim.Optimizer):
    """`optimizer_class` with its state shared among processes (Rajbhandari et al. 2020, arXiv:1910.02054, stage 1).

    Gradients must be equal on all processes at `step` (DDP). granularity: "rows" gives every process an equal share of
    the first dimension of each parameter, for optimizers that update element by element (Adam, SGD, Lion and most
    others); "tensors" gives whole parameters to single processes, the largest first to who has least, for any
    optimizer. `process_group` None is one process. With "rows" `state_dict()` has the same keys on every process and
    goes through torch.distributed.checkpoint to any number of them, from the first step on; with "tensors" each has its
    own.

    To read a checkpoint, call `allocate_state` on a new optimizer, torch.distributed.checkpoint.load into its
    `state_dict()`, and `load_state_dict` that.

    ValueError: an optimizer or a parameter that cannot be updated by rows, or an unknown granularity.
    """

    def __init__(
        self,
        params: Iterable[Any],
        optimizer_class: Callable[..., torch.optim.Optimizer],
        process_group: dist.ProcessGroup | None = None,
        granularity: Literal["rows", "tensors"] = "rows",
        **defaults: Any,
    ):
        if granularity not in ("rows", "tensors"):
            raise ValueError(f"granularity must be 'rows' or 'tensors', got {granularity!r}")
        if granularity == "rows" and optimizer_class in WHOLE_TENSORS:
            name = getattr(optimizer_class, "__name__", optimizer_class)
            raise ValueError(f"{name} needs parameters whole: use granularity='tensors'")
        self._built = False
        super().__init__(params, defaults)
        self._built = True
        self.optimizer_class = optimizer_class
        everything = [p for group in self.param_groups for p in group["params"]]
        self.ranks = Ranks(process_group, everything[0].device.type)
        self.by_rows = granularity == "rows"
        if self.by_rows and not all(p.is_contiguous() for p in everything):
            raise ValueError("rows of a parameter that is not contiguous cannot be updated: use granularity='tensors'")
        self.owners = _balanced(everything, self.ranks.size)
        self.parts: dict[Tensor, Tensor] = {p: self._part(p) for p in everything if self._is_mine(p)}
        groups = [
            {**group, "params": [self.parts[p] for p in group["params"] if p in self.parts]}
            for group in self.param_groups
        ]
        self.places = [i for i, group in enumerate(groups) if group["params"]]
        """Which groups have parameters here: the inner optimizer has only those."""
        self.inner = optimizer_class([groups[i] for i in self.places], **defaults) if self.places else None
        if self.inner is not None:
            for i, inner in zip(self.places, self.inner.param_groups, strict=True):
                self.param_groups[i].update({k: v for k, v in inner.items() if k != "params"})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self._built:
            raise ValueError("ZeroOne shares its parameters out when it is built: give it all groups then")
        super().add_param_group(param_group)

    def _is_mine(self, p: Tensor) -> bool:
        return self.by_rows or self.owners[p] == self.ranks.rank

    def _part(self, tensor: Tensor) -> Tensor:
        """What this process updates of a parameter, or the same of its gradient: a view."""
        rows = tensor.detach()[None] if tensor.dim() == 0 else tensor.detach()
        return rows[self.ranks.share(len(rows))] if self.by_rows else tensor.detach()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.inner is not None:
            for i, inner in zip(self.places, self.inner.param_groups, strict=True):
                inner.update({k: v for k, v in self.param_groups[i].items() if k != "params"})
            for p, part in self.parts.items():
                part.grad = None if p.grad is None else self._part(p.grad)
            self.inner.step()
        if self.ranks.size > 1:
            for p in (p for group in self.param_groups for p in group["params"]):
                self._publish(p)
        return loss

    def _publish(self, p: Tensor) -> None:
        if not self.by_rows:
            source = dist.get_global_rank(self.ranks.group, self.owners[p]) if self.ranks.group else 0
            dist.broadcast(p.detach(), source, group=self.ranks.group)
            return
        rows = p.detach()[None] if p.dim() == 0 else p.detach()
        chunk = self.ranks.chunk(len(rows))
        sent = rows.new_zeros(chunk, *rows.shape[1:])
        sent[: len(self.parts[p])] = self.parts[p]
        everything = rows.new_empty(chunk * self.ranks.size, *rows.shape[1:])
        dist.all_gather_into_tensor(everything, sent, group=self.ranks.group)
        rows.copy_(everything[: len(rows)])

    def state_dict(self) -> dict[str, Any]:
        """As torch's, by the parameters' places; tensors of sharded rows are DTensors."""
        everything = [p for group in self.param_groups for p in group["params"]]
        index = {p: i for i, p in enumerate(everything)}
        state = {
            index[p]: {key: self._exported(value, part, p) for key, value in self.inner.state[part].items()}
            for p, part in self.parts.items()
            if self.inner is not None and part in self.inner.state
        }
        groups = [
            {**{k: v for k, v in group.items() if k != "params"}, "params": [index[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def _exported(self, value: Any, part: Tensor, p: Tensor) -> Any:
        if not self.by_rows or not isinstance(value, Tensor) or value.shape != part.shape:
            return value
        return self.ranks.sharded(value, p.shape if p.dim() else (1,))

    def allocate_state(self) -> None:
        """Give every parameter of this process the state entries that a first step would, to load into."""
        if self.inner is None or self.inner.state:
            return
        stand_ins = {part: torch.zeros_like(part) for part in self.parts.values()}
        for stand_in in stand_ins.values():
            stand_in.grad = torch.zeros_like(stand_in)
        groups = [{**g, "params": [stand_ins[part] for part in g["params"]]} for g in self.inner.param_groups]
        other = self.optimizer_class(groups, **self.defaults)
        other.step()
        for part, stand_in in stand_ins.items():
            self.inner.state[part] = other.state[stand_in]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an equal optimizer on as many processes. ValueError: groups differ."""
        saved_groups = state_dict["param_groups"]
        sizes, saved = [[len(g["params"]) for g in groups] for groups in (self.param_groups, saved_groups)]
        if sizes != saved:
            raise ValueError(f"the state has groups of {saved} parameters, this optimizer of {sizes}: build it alike")
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            group.update({k: v for k, v in saved_group.items() if k not in ("params", "param_names")})
            for p, index in zip(group["params"], saved_group["params"], strict=True):
                if p not in self.parts or self.inner is None:
                    continue
                if index not in state_dict["state"] and self.inner.state.get(self.parts[p]):
                    raise ValueError(f"the state has nothing for parameter {index} of shape {tuple(p.shape)}")
                if index in state_dict["state"]:
                    entries = state_dict["state"][index].items()
                    self.inner.state[self.parts[p]] = {key: self._imported(value, p) for key, value in entries}

    def _imported(self, value: Any, p: Tensor) -> Any:
        part = self.parts[p]
        if isinstance(value, DTensor):
            value = value.to_local()
        if isinstance(value, Tensor) and value.dim() and value.shape != part.shape and self.by_rows:
            raise ValueError(
                f"the state of a parameter of shape {tuple(p.shape)} has {tuple(value.shape)} here instead of "
                f"{tuple(part.shape)}: it was saved by another number of processes; {RESHARD}"
            )
        return value.clone() if isinstance(value, Tensor) else value


def _balanced(params: list[Tensor], size: int) -> dict[Tensor, int]:
    """An owner for each parameter: the largest first, each to the process that has least so far."""
    loads, owners = [0] * size, {}
    for p in sorted(params, key=lambda p: -p.numel()):
        owners[p] = loads.index(min(loads))
        loads[owners[p]] += p.numel()
    return owners
