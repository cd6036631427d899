"""Reading a Hugging Face model from an object, a folder or a name."""

from pathlib import Path
from types import ModuleType
from typing import Any


class _WrongModelError(ValueError):
    """The source holds weights of another architecture."""


def require_transformers() -> ModuleType:
    """The transformers package. ImportError that names the extra if it is missing."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError("Hugging Face models need transformers: pip install 'gpt-core[hf]'") from error
    return transformers


def hf_source(source: Any, class_name: str) -> Any:
    """A transformers model of the named class, loaded if source is a folder or a name on the Hub."""
    model_class = getattr(require_transformers(), class_name)
    if isinstance(source, model_class):
        return source
    if not isinstance(source, (str, Path)):
        raise ValueError(f"expected a {class_name}, a folder or a name on the Hub, got {type(source).__name__}")
    if Path(source).is_dir():
        try:
            return _load(model_class, str(source), local_files_only=True)
        except OSError as error:
            raise ValueError(f"{source} is not the folder of a {class_name}: {error}") from error
    try:
        return _load(model_class, str(source), local_files_only=True)  # downloaded before
    except _WrongModelError:
        raise
    except (OSError, ValueError):
        pass
    try:
        return _load(model_class, str(source))
    except OSError as error:
        raise ValueError(
            f"cannot load {str(source)!r}: it is neither a folder here nor reachable on the Hugging Face Hub. "
            "Download it where there is a network (save_pretrained) and pass the folder"
        ) from error


def _load(model_class: Any, source: str, **options: Any) -> Any:
    """A float32 model with every weight from the source: transformers draws missing ones at random and goes on."""
    import torch

    model, info = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **options)
    if info["missing_keys"]:
        raise _WrongModelError(
            f"{source} is not a {model_class.__name__}: it has no {', '.join(sorted(info['missing_keys'])[:3])}"
        )
    return model
