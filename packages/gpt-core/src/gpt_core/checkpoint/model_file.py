"""Model weights and architecture: `model.safetensors` and `meta.json` of a checkpoint folder."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gpt_core.checkpoint.discovery import CheckpointError

FORMAT = 1
TRUSTED = ("gpt_core", "gpt_dag")


def weights_of(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """The model's weights as whole tensors on the CPU; see `own_tensors` for the names.

    Of a sharded model (FSDP2) one tensor at a time is gathered, so every rank must call it; those that do not `keep`
    what they gather get {}.
    """
    weights = {}
    for name, tensor in own_tensors(model).items():
        whole = tensor.full_tensor() if is_sharded(tensor) else tensor  # ty: ignore[missing-attribute]
        if keep:
            weights[name] = whole.contiguous().cpu()
    return weights


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state with every shared (tied) tensor once, under the first of its names; sharded ones as they are.

    Wrappers' prefixes (`_orig_mod.`, `module.`) are stripped at any depth, so a compiled or DDP model gives clean
    names.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[object] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        # a sharded parameter is told by its object, since a rank's slice of it may be empty
        plain = tensor.numel() and not is_sharded(tensor)
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset()) if plain else id(tensor)
        if place in seen:
            continue
        seen.add(place)
        tensors[clean_name(name)] = tensor.detach()
    return tensors


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor; told without importing that class, which takes seconds."""
    return hasattr(tensor, "full_tensor")


def clean_name(name: str) -> str:
    return ".".join(
        part for part in name.split(".") if part not in ("_orig_mod", "module", "_checkpoint_wrapped_module")
    )


def save_model(folder: Path | str, model: nn.Module, meta: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `meta.json` into an existing folder.

    `meta["model"]` must be {"module": dotted factory, "module_kwargs": {...}}, from which `load_model` rebuilds the
    model.
    """
    write_model(folder, weights_of(model), meta)


def write_model(folder: Path | str, weights: dict[str, Tensor], meta: Mapping[str, Any]) -> None:
    """`save_model` for weights that were gathered already."""
    folder = Path(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    versions = {"gpt-core": importlib.metadata.version("gpt-core"), "torch": str(torch.__version__)}
    text = json.dumps({"format": FORMAT, "versions": versions, **meta}, indent=1, allow_nan=False)
    (folder / "meta.json").write_text(text + "\n", encoding="utf-8")


def read_meta(checkpoint: Path | str) -> dict[str, Any]:
    """The parsed `meta.json` of a checkpoint folder."""
    path = Path(checkpoint) / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: {checkpoint} is not a checkpoint folder") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another checkpoint of the run") from error
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, this version reads {FORMAT}; upgrade gpt-core")
    return meta


def load_weights(model: nn.Module, checkpoint: Path | str) -> None:
    """Load `model.safetensors` of a checkpoint folder into `model`; names and shapes must match exactly.

    A rank of a sharded model reads the file by itself and keeps its slices.
    """
    path = Path(checkpoint) / "model.safetensors"
    own = own_tensors(model)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: laid_out(file.get_tensor(name), own.get(name)) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: use another checkpoint of the run") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another checkpoint of the run") from error
    names = {clean_name(name): name for name in model.state_dict()}  # a wrapped model's own have prefixes
    missing = own.keys() - weights.keys()
    extra = weights.keys() - names.keys()
    if missing or extra:
        raise CheckpointError(
            f"{path} does not fit the model: missing {_some(missing)}, unexpected {_some(extra)}; "
            "the architecture in meta.json and in the configuration differ"
        )
    try:
        # not strict, since only one of several tied names is stored; the check was made above
        model.load_state_dict({names[name]: weight for name, weight in weights.items()}, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from error


def laid_out(whole: Tensor, like: Tensor | None) -> Tensor:
    """`whole` itself, or this rank's slice of it where `like` is sharded."""
    if like is None or not is_sharded(like) or like.shape != whole.shape:
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _some(names: set[str]) -> str:
    return (", ".join(sorted(names)[:4]) + (", …" if len(names) > 4 else "")) or "none"


def load_model(
    checkpoint: Path | str, device: torch.device | str = "cpu", trusted: Sequence[str] = TRUSTED
) -> nn.Module:
    """Rebuild the model that `meta.json` describes, with its weights, on `device`, in evaluation mode.

    A checkpoint names the factory to call, and may come from a stranger: only factories defined in the `trusted`
    top-level packages are called. Add your own package's name to load a model of your own.
    """
    description = read_meta(checkpoint)["model"]
    module, _, name = description["module"].rpartition(".")
    if module.partition(".")[0] not in trusted:
        raise CheckpointError(_distrust(checkpoint, description["module"], trusted))
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint} was made by {description['module']}, which is not here: {error}"
        ) from error
    if factory.__module__.partition(".")[0] not in trusted:  # something that a trusted module merely imports
        raise CheckpointError(_distrust(checkpoint, description["module"], trusted))
    model = factory(**description["module_kwargs"])
    load_weights(model, checkpoint)
    return model.to(device).eval()


def _distrust(checkpoint: Path | str, factory: str, trusted: Sequence[str]) -> str:
    return (
        f"{checkpoint} asks to call {factory}, which is outside the trusted packages {', '.join(trusted)}; "
        "if you trust it, pass trusted=(..., its package)"
    )
