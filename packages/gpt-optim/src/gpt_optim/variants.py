"""`MuonAdamW` under the names by which the field knows its parts, with the defaults of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist

from gpt_kernels import newton_schulz
from gpt_optim.muon import MuonAdamW


class Muon(MuonAdamW):
    """Muon (Jordan et al. 2024) on matrices; arguments and the other kinds of groups as in `MuonAdamW`."""

    def __init__(self, params: Iterable[Any], lr: float = 0.02, **options: Any):
        defaults: dict[str, Any] = {"kind": "muon", "orthogonalize": newton_schulz}
        super().__init__(params, lr, **(defaults | options))


class NorMuon(MuonAdamW):
    """NorMuon (Li et al. 2025, arXiv:2510.05491) with Polar Express."""

    def __init__(self, params: Iterable[Any], lr: float = 0.02, **options: Any):
        defaults: dict[str, Any] = {"kind": "normuon"}
        super().__init__(params, lr, **(defaults | options))


class DistMuonAdamW(MuonAdamW):
    """ZeRO-2: state and work shared among all processes, which average their own gradients. No DDP around the model.

    The processes are those of torch.distributed's default group, if there is one; one process otherwise.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.02, **options: Any):
        everybody = dist.group.WORLD if dist.is_initialized() else None
        defaults: dict[str, Any] = {"process_group": everybody}
        super().__init__(params, lr, **(defaults | options))


class DistAdamW(DistMuonAdamW):
    """`DistMuonAdamW` with AdamW for every group that does not say otherwise."""

    def __init__(self, params: Iterable[Any], lr: float = 6e-4, **options: Any):
        defaults: dict[str, Any] = {"kind": "adamw"}
        super().__init__(params, lr, **(defaults | options))
