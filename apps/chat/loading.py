"""From what the command line (or the page) names to a model in memory with its tokenizer and chat template."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import gpt_data
from gpt_core.checkpoint import CheckpointError, load_model, read_meta
from gpt_core.checkpoint.model_file import TRUSTED
from gpt_core.generate import locate
from gpt_data.chat import TEMPLATES, ChatTemplate
from gpt_data.preparation import nanogpt_tokenizer
from gpt_data.tokenizers import ByteTokenizer, Tokenizer, gpt2_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class How:
    """What the command line says about loading, whichever checkpoint it is."""

    device: torch.device | str = "cpu"
    dtype: str | None = None
    tokenizer: str | None = None
    """gpt2, byte, a tokenizer's folder or a nanoGPT meta.pkl; None: the run's own."""
    template: str | None = None
    """chatml, roles, or raw: no template; None: as the checkpoint says."""
    trusted: Sequence[str] = ()
    """Packages, besides ours, whose model factories a checkpoint may call."""

    def on(self, device: torch.device | str) -> "How":
        return replace(self, device=device)


@dataclass(frozen=True)
class Loaded:
    """A model that can be talked to."""

    name: str
    model: nn.Module
    tokenizer: Tokenizer
    template: ChatTemplate | None
    """None: a base model, which continues text."""
    context: int
    """Tokens that the model sees."""

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def load(path: str | Path, checkpoint: str = "latest", how: How | None = None, name: str | None = None) -> Loaded:
    """Open a run, a folder of runs (the newest one), a checkpoint folder or a nanoGPT ckpt.pt.

    ValueError (CheckpointError among them), OSError or ImportError for what cannot be opened.
    """
    how = how or How()
    if str(path).endswith(".pt"):
        model, tokenizer, template, found = _nanogpt(Path(path), how.tokenizer)
    else:
        run, folder = locate(path, checkpoint)
        model = load_model(folder, how.device, trusted=(*TRUSTED, *how.trusted))
        tokenizer = find_tokenizer(how.tokenizer) if how.tokenizer else gpt_data.load_tokenizer(run / "tokenizer")
        template, found = read_meta(folder).get("template"), _name(Path(path), run, folder, checkpoint)
    dtype = DTYPES.get(how.dtype) if how.dtype else None
    model = model.to(device=how.device, dtype=dtype).eval()
    config = getattr(model, "config", None)
    known, context = getattr(config, "vocab_size", 0), getattr(config, "context_length", 0)
    if tokenizer.vocab_size > known:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model of {path} knows {known}: it was trained "
            "with another one; name it with --tokenizer"
        )
    return Loaded(name or found, model, tokenizer, choose_template(how.template, template, tokenizer), context)


def choose_template(asked: str | None, recorded: object, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template of a checkpoint: what was asked for, else `template` of its meta.json, else the tokenizer's.

    None: there is none, and the model continues text. A checkpoint that records null leaves it to the tokenizer.
    A name that does not exist, or whose tokens the tokenizer lacks, is a ValueError.
    """
    name = asked or recorded or getattr(tokenizer, "template", None)
    if name is None or name == "raw":
        return None
    if not isinstance(name, str) or name not in TEMPLATES:
        raise ValueError(f"there is no chat template {name!r}; there are {', '.join(TEMPLATES)}, and raw for none")
    template = TEMPLATES[name]
    missing = [token for token in template.special_tokens if token not in tokenizer.special_tokens]
    if missing:
        raise ValueError(
            f"the tokenizer {tokenizer.name!r} has no token {missing[0]!r}, which the template {name!r} needs"
        )
    return template


def find_tokenizer(name: str) -> Tokenizer:
    """gpt2, byte, a folder that a tokenizer was saved in, or the meta.pkl of a nanoGPT dataset."""
    named: dict[str, Callable[[], Tokenizer]] = {"gpt2": gpt2_tokenizer, "byte": ByteTokenizer}
    if name in named:
        return named[name]()
    return nanogpt_tokenizer(name) if name.endswith(".pkl") else gpt_data.load_tokenizer(name)


def _name(path: Path, run: Path, folder: Path, checkpoint: str) -> str:
    """What a checkpoint goes by: its run, or its place in it where that was asked for; as `checkpoints.list_names`."""
    if run == folder:
        return folder.name
    of_the_run = checkpoint == "latest" and path.resolve() != folder
    return run.resolve().name if of_the_run else f"{run.resolve().name}/checkpoints/{folder.name}"


def _nanogpt(path: Path, tokenizer: str | None) -> tuple[nn.Module, Tokenizer, None, str]:
    from gpt_core.models.convert import from_nanogpt

    model = from_nanogpt(path)
    if tokenizer is None and model.config.vocab_size < 50257:
        raise CheckpointError(f"{path} is not a GPT-2 vocabulary: give --tokenizer PATH/TO/meta.pkl")
    return model, find_tokenizer(tokenizer or "gpt2"), None, path.name
