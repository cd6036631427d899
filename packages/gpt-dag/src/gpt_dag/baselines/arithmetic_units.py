"""Layers whose weights are meant to become 0, 1 or −1, so that a sum, difference, product or quotient extrapolates.

B batch, I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NALU(nn.Module):
    """Neural arithmetic logic unit (Trask et al. 2018, arXiv:1808.00508, eq. 1 and 2).

    W = tanh(Ŵ) ∘ σ(M̂); a = Wx; m = exp(W ln(|x| + ε)); y = g ∘ a + (1 − g) ∘ m with g = σ(Gx). Products lose the sign.
    """

    def __init__(self, inputs: int, outputs: int, epsilon: float = 1e-7):
        super().__init__()
        self.epsilon = epsilon
        self.w_hat, self.m_hat, self.gate = (nn.Parameter(torch.empty(outputs, inputs)) for _ in range(3))
        for parameter in (self.w_hat, self.m_hat, self.gate):
            nn.init.xavier_uniform_(parameter)

    @property
    def weight(self) -> Tensor:
        """(O, I) in (−1, 1)."""
        return self.w_hat.tanh() * self.m_hat.sigmoid()

    def forward(self, x_BI: Tensor) -> Tensor:
        added = F.linear(x_BI, self.weight)
        multiplied = F.linear((x_BI.abs() + self.epsilon).log(), self.weight).exp()
        g = F.linear(x_BI, self.gate).sigmoid()
        return g * added + (1 - g) * multiplied

    def regularization(self) -> Tensor:
        """None in the paper: 0."""
        return self.w_hat.new_zeros(())


class NAU(nn.Module):
    """Neural addition unit (Madsen & Johansen 2020, arXiv:2001.05016): y = Wx, W clamped to [−1, 1]."""

    lowest = -1.0

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        reach = min(0.5, (6 / (inputs + outputs)) ** 0.5)
        self.w = nn.Parameter(torch.empty(outputs, inputs).uniform_(-reach, reach))

    @property
    def weight(self) -> Tensor:
        """(O, I)"""
        return self.w.clamp(self.lowest, 1.0)

    def forward(self, x_BI: Tensor) -> Tensor:
        return F.linear(x_BI, self.weight)

    def regularization(self) -> Tensor:
        """Mean of min(|W|, |1 − |W||): 0 where every weight is −1, 0 or 1."""
        size = self.weight.abs()
        return torch.minimum(size, (1 - size).abs()).mean()


class NMU(NAU):
    """Neural multiplication unit (same paper): y = ∏ᵢ (Wᵢxᵢ + 1 − Wᵢ), W clamped to [0, 1]."""

    lowest = 0.0

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        nn.init.uniform_(self.w, 0.25, 0.75)

    def forward(self, x_BI: Tensor) -> Tensor:
        w_OI = self.weight
        return (w_OI * x_BI[..., None, :] + 1 - w_OI).prod(-1)
