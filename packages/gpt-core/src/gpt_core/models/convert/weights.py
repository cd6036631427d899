"""Weights of a model as one safetensors file that also holds its config."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import GPTConfig
from ..gpt import GPT

_WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict with the names a bare model has: no `_orig_mod.` (anywhere), no leading `module.`."""
    return {_bare_name(name): tensor for name, tensor in state.items()}


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the weights, and the config as metadata, to a safetensors file.

    The model may be compiled, wrapped in DDP, or hold shared tensors (written once, under their first name).
    """
    state: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for name, tensor in strip_prefixes(model.state_dict()).items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or key not in seen:
            state[name] = tensor.detach().cpu().contiguous()
        seen.add(key)
    config = getattr(_unwrap(model), "config", None)
    metadata = {"format": "pt"}
    if isinstance(config, GPTConfig):
        metadata["gpt_config"] = json.dumps(config.to_dict())
    save_file(state, path, metadata)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a model from a safetensors file. ValueError unless names and shapes agree."""
    fill(_unwrap(model), load_file(path), source=str(path))


def load_gpt(path: str | Path) -> GPT:
    """Build the GPT that `save_weights` wrote, from the config in the file."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "gpt_config" not in metadata:
        raise ValueError(f"{path} holds no GPT config; build the model and use load_weights(model, path)")
    model = empty_gpt(GPTConfig.from_dict(json.loads(metadata["gpt_config"])))
    load_weights(model, path)
    return model


def empty_gpt(config: GPTConfig) -> GPT:
    """A GPT on the CPU whose parameters are still to be filled; draws no random numbers."""
    with without_random_init():
        return GPT(config)


class without_random_init(TorchFunctionMode):  # a context, named as what it does
    """Random initialization is left out. The meta device would do it too, and import sympy for seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return None
        return func(*args, **(kwargs or {}))


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """load_state_dict that allows shared tensors to be given once and names what does not fit."""
    own = strip_prefixes(model.state_dict())
    bare = strip_prefixes(state)
    wrong = [
        f"{name} {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in bare.items()
        if name in own and tensor.shape != own[name].shape
    ]
    given = {own[name].data_ptr() for name in bare if name in own}
    missing = [name for name, tensor in own.items() if name not in bare and tensor.data_ptr() not in given]
    unknown = [name for name in bare if name not in own]
    if wrong or missing or unknown:
        raise ValueError(
            f"{source} does not fit the model: wrong shapes {wrong[:3]}, missing {missing[:3]}, "
            f"unknown {unknown[:3]} ({len(wrong)}, {len(missing)} and {len(unknown)} in all)"
        )
    with torch.no_grad():
        for name, tensor in bare.items():
            own[name].copy_(tensor)


def _bare_name(name: str) -> str:
    words = [word for word in name.split(".") if word not in _WRAPPERS]
    while words[0] == "module":
        words = words[1:]
    return ".".join(words)


def _unwrap(model: nn.Module) -> nn.Module:
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
