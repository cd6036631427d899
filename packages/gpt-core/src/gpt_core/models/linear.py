"""The linear map that every block is made of, and when its parameters may be used without calling it."""

from torch import Tensor, nn

import gpt_kernels


class Linear(nn.Linear):
    """torch's linear layer on the fastest path for its arguments (see gpt_kernels.linear)."""

    def forward(self, input: Tensor) -> Tensor:
        return gpt_kernels.linear(input, self.weight, self.bias)


def is_just(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Whether calling `module` does what `kind` says and nothing else: no subclass, replacement or hook is in between.

    Only then may a fused operation take its parameters. Float8 conversion and adapters put other classes there.
    """
    if type(module) is not kind or module is None or "forward" in module.__dict__:
        return False
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks)
