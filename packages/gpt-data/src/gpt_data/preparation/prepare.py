"""From a name to a finished dataset folder.

Work happens in `.NAME.partial/` beside the folder, and one rename makes the folder appear. A part is the unit of work:
a finished one has a record and survives kill -9, an unfinished one is done again. Threads do the work, because
tiktoken, hashing and file reads release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..dataset import DESCRIPTION_FILE, DatasetInfo, read_dataset
from ..errors import DatasetError
from ..root import data_root
from .build import Context, Options
from .build_text import build_text
from .lock import exclusive
from .progress import Progress
from .recipes import RECIPES
from .staging import Staging, check_replaceable
from .vocabulary import check_choice


def prepare(
    name: str,
    paths: Sequence[str | Path] = (),
    *,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    gpt2_bpe: str | Path | None = None,
    out: str | Path | None = None,
    root: str | Path | None = None,
    force: bool = False,
    workers: int | None = None,
    shard_bytes: int | None = None,
    quiet: bool = False,
) -> DatasetInfo:
    """Prepare a dataset, or open it if it is there. Any number of processes may call this at once: one works.

    name: one of `RECIPES`; paths: the user's texts, for recipes that take some;
    tokenizer: bpe | char | byte | gpt2; vocab_size: of a trained one; gpt2_bpe: folder with GPT-2's vocabulary files;
    out: the dataset folder (default: `name`, or the name of the first text, below `root`);
    force: replace what is there;
    workers: threads (default: one per core); shard_bytes: text per shard (default: a 16th of all, 1 to 256 MB).
    Errors: DatasetError says what is wrong with a text or with the folder; ValueError names an unknown choice.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}, expected one of {', '.join(RECIPES)}.")
    kind = tokenizer or RECIPES[name].tokenizer
    options: Options = {"tokenizer": kind, "vocab_size": check_choice(kind, vocab_size)}
    chosen = {key: value for key, value in (("tokenizer", tokenizer), ("vocab_size", vocab_size)) if value is not None}
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1.")
    texts = [Path(path) for path in paths]
    folder = Path(out) if out else data_root(root) / _default_name(name, texts)
    staging = Staging(folder.parent / f".{folder.name}.partial")
    progress = Progress(f"prepare {name}", quiet)
    with exclusive(folder.parent / f".{folder.name}.lock", progress.say):
        if folder.exists() and not force:
            staging.forget_published()
            info = _open_existing(folder, chosen)
            progress.say(f"is in {folder} already, made from {info.source['description']}")
            return info
        check_replaceable(folder)
        source = RECIPES[name].source(texts, folder.parent / "downloads")
        context = Context(name, folder.name, staging, options, progress, workers, shard_bytes, gpt2_bpe)
        build_text(context, source)
        staging.publish(folder)
        progress.say(f"ready in {folder}")
        return read_dataset(folder)


def _default_name(name: str, texts: Sequence[Path]) -> str:
    """A text's dataset is called like its first file or folder."""
    if name != "text" or not texts:
        return name
    stem = texts[0].resolve().stem
    if stem in RECIPES:
        raise DatasetError(f"{texts[0]}: the dataset would be called {stem!r} like a recipe. Choose a folder: --out.")
    return stem


def _open_existing(folder: Path, chosen: Options) -> DatasetInfo:
    if not (folder / DESCRIPTION_FILE).exists():
        raise DatasetError(f"{folder}: exists and is no dataset. Choose another folder with --out, or remove it.")
    info = read_dataset(folder)
    for key, value in chosen.items():
        if info.options.get(key) != value:
            raise DatasetError(
                f"{folder}: was prepared with {key} = {info.options.get(key)!r}, not {value!r}. Choose another folder "
                "with --out, or replace it with --force."
            )
    return info
