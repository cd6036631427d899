"""What tests of training share."""

import pytest
import torch


class SignDescent:
    """p ← p − lr · sign(gradient): as far as Adam goes at its first step. torch.optim takes seconds to import."""

    def __init__(self, parameters, lr):
        self.param_groups = [{"params": [p for p in parameters if p.requires_grad], "lr": lr}]

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad.sign()

    def zero_grad(self, set_to_none=True):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


@pytest.fixture
def descent():
    return SignDescent
