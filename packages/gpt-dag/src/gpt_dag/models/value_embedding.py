"""Real numbers as vectors: what the hidden state is told about the value of a node.

Dimensions: ... any leading, F features, D model width.
"""

import math

import torch
from torch import Tensor, nn

from gpt_core.models.linear import Linear

LOG_PERIODS = 16
"""Frequencies of ln|v|; their periods grow geometrically from 0.1 to 100."""
PLACES = range(-4, 9)
"""Of the decimal digits that FoNE's phases show: 10^-4 to 10^8."""
LARGEST = 1e15
"""Above it float64 does not know the units digit: phases are 0 there."""
FEATURES = 5 + 2 * LOG_PERIODS + 2 * len(PLACES)


class ValueEmbedding(nn.Module):
    """A signed log-magnitude as a vector of the model's width: fixed features, then one linear map.

    Features: one-hot sign (−1, 0, 1) and "no value"; ln|v|/10; cos and sin of ln|v| at `LOG_PERIODS` periods; and
    FoNE's cos and sin of 2πv/10^i (Zhou et al. 2025, arXiv:2502.09741), from which each decimal digit can be read.
    An earlier system gave all its frequencies the same period. Gradients reach ln|v| through the first two only: the
    phase of a small place turns so fast that its derivative says nothing.
    """

    def __init__(self, width: int):
        super().__init__()
        self.map = Linear(FEATURES, width, bias=True)

    def forward(self, sign: Tensor, log: Tensor, valid: Tensor | None = None) -> Tensor:
        """sign, log (...) -> (..., D). log: ln|v| in float64, ignored where sign is 0. valid (...) bool: False where
        there is no value."""
        return self.map(value_features(sign, log, valid).to(self.map.weight.dtype))


def value_features(sign: Tensor, log: Tensor, valid: Tensor | None = None) -> Tensor:
    """(..., F) float64."""
    sign, log = sign.double(), log.double()
    valid = torch.ones_like(sign, dtype=torch.bool) if valid is None else valid
    sign = torch.where(valid, sign, 0.0)
    live = valid & (sign.detach() != 0)
    log = torch.where(live, log, 0.0)
    zero = (valid & ~live).double()
    flags = torch.stack([sign.clamp(min=0), zero, (-sign).clamp(min=0), (~valid).double(), log / 10], -1)
    return torch.cat([flags, live[..., None] * _waves(log), valid[..., None] * _phases(sign, log)], -1)


def _waves(log: Tensor) -> Tensor:
    """(...) -> (..., 2·LOG_PERIODS)"""
    exponents = torch.arange(LOG_PERIODS, dtype=torch.float64, device=log.device) / (LOG_PERIODS - 1)
    periods = 0.1 * 1000**exponents
    angles = 2 * math.pi * log[..., None] / periods
    return torch.cat([angles.cos(), angles.sin()], -1)


@torch.no_grad()
def _phases(sign: Tensor, log: Tensor) -> Tensor:
    """(...) -> (..., 2·places)"""
    value = sign * log.clamp(max=math.log(LARGEST)).exp()
    value = torch.where(log > math.log(LARGEST), 0.0, value)
    scales = 10.0 ** torch.tensor(list(PLACES), dtype=torch.float64, device=log.device)
    angles = 2 * math.pi * torch.remainder(value[..., None] / scales, 1.0)
    return torch.cat([angles.cos(), angles.sin()], -1)
