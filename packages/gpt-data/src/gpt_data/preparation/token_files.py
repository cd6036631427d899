"""Datasets that come as token shards: fetched, and described as they are."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DatasetError
from .build import Context
from .hub import ask_hub, download_file
from .sources import Request
from .speedrun import describe_speedrun

REPOSITORY = "kjj0/fineweb10B-gpt2"
VAL_FILE = "fineweb_val_000000.bin"
CHUNKS = 103
"""All that there are, of 100 M tokens each."""


@dataclass(frozen=True)
class TokenFiles:
    """Files of the speedrun's format, here."""

    description: str
    paths: tuple[Path, ...]


def speedrun_files(request: Request) -> TokenFiles:
    """The validation file and the first `chunks` of the training files, from the hub or from the user's folder."""
    chunks = request.options["chunks"]
    if not 1 <= chunks <= CHUNKS:
        raise ValueError(f"chunks is {chunks}, expected 1 to {CHUNKS}: files of 100 M tokens.")
    revision = request.options["revision"]
    if request.texts and revision is not None:
        raise DatasetError(f"revision is {revision!r}, but nothing is downloaded: the files are copies.")
    names = [VAL_FILE, *(f"fineweb_train_{number:06d}.bin" for number in range(1, chunks + 1))]
    if not request.texts:
        ask_hub(REPOSITORY, revision)  # without a network all ends here
        paths = [download_file(REPOSITORY, name, revision) for name in names]
        return TokenFiles(f"{REPOSITORY}, {chunks} chunks", tuple(paths))
    here = {path.name: path for text in request.texts for path in ([text] if text.is_file() else text.glob("*.bin"))}
    missing = [name for name in names if name not in here]
    if missing:
        raise DatasetError(
            f"{missing[0]}: is not in what --text names. Give a folder with {VAL_FILE} and {chunks} training files, or "
            "ask for fewer: --chunks N."
        )
    return TokenFiles(f"copies of {REPOSITORY}, {chunks} chunks", tuple(here[name] for name in names))


def build_token_files(context: Context, source: TokenFiles) -> None:
    """Put the files into the staging folder (as links where that is possible) and describe them."""
    if context.options["tokenizer"] != "gpt2":
        raise ValueError(f"{context.recipe} is made of GPT-2's ids, not of {context.options['tokenizer']!r}.")
    staging = context.staging
    names = "\n".join(path.name for path in source.paths)
    staging.open(hashlib.sha256(names.encode()).hexdigest())
    for path in source.paths:
        target = staging.dataset / path.name
        target.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:  # another file system
            shutil.copyfile(path, target)
    context.progress.say(f"checking {len(source.paths)} files")
    info = describe_speedrun(staging.dataset, context.gpt2_bpe)
    facts = {**info.source, "recipe": context.recipe, "description": source.description}
    replace(info, name=context.name, source=facts, options=context.options).save()
