"""From a name to a finished dataset folder.

Work happens in `.NAME.partial/` beside the folder, and one rename makes the folder appear. A part is the unit of work:
a finished one has a record and survives kill -9, an unfinished one is done again. Threads do the work, because
tiktoken, hashing and file reads release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..dataset import DESCRIPTION_FILE, DatasetInfo, read_dataset
from ..errors import DatasetError
from ..root import data_root
from .build import Context, Options
from .build_chat import build_chat
from .build_text import build_text
from .lock import exclusive
from .mixture import ChatSource
from .progress import Progress
from .recipes import NEEDS_TEXTS, RECIPES
from .sources import Request, own_name
from .staging import Staging, check_replaceable
from .tables import COMPRESSED
from .token_files import TokenFiles, build_token_files
from .vocabulary import TOKENIZERS, check_choice, is_same_tokenizer, tokenizer_name


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
    **recipe_options: Any,
) -> DatasetInfo:
    """Prepare a dataset, or open it if it is there. Any number of processes may call this at once: one works.

    name: one of `RECIPES`; paths: the user's texts, for recipes that take some, or copies in place of a download;
    tokenizer: bpe | char | byte | gpt2, or the folder of a saved one; vocab_size: of a trained one;
    gpt2_bpe: folder with GPT-2's vocabulary files;
    out: the dataset folder (default: `name`, or the name of the first text, below `root`);
    force: replace what is there;
    workers: threads (default: one per core); shard_bytes: text per shard (default: a 16th of all, 1 to 256 MB).
    Some recipes take more (`RECIPES[name].options`; None is as if not given):
    text_field: the column of a table that holds the text (default: text, content or document);
    val_one_in: one document of a table in so many is held out, by its hash (default: 20, of the hub's 2000);
    subset, revision: of a dataset of the hub; chunks: files of fineweb10B;
    template: of conversations: chatml | roles; val_from, allow_missing: of task_mixture: where GSM8K's validation rows
    come from (test | train); go on without a task that cannot be had.
    Errors: DatasetError says what is wrong with a text or with the folder; ValueError names an unknown choice.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}, expected one of {', '.join(RECIPES)}.")
    tokenizer = None if tokenizer is None else tokenizer_name(tokenizer)
    kind = tokenizer or RECIPES[name].tokenizer
    more = {key: value for key, value in recipe_options.items() if value is not None}
    wishes = _recipe_options(name, more)
    options: Options = {"tokenizer": kind, "vocab_size": check_choice(kind, vocab_size)}
    options |= {key: value for key, value in wishes.items() if value is not None}
    own = {"tokenizer": tokenizer, "vocab_size": vocab_size}
    chosen = {key: value for key, value in own.items() if value is not None} | more
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1.")
    texts = [Path(path) for path in paths]
    folder = Path(out) if out else data_root(root) / _default_name(name, texts)
    staging = Staging(folder.parent / f".{folder.name}.partial")
    progress = Progress(f"prepare {name}", quiet)
    with exclusive(folder.parent / f".{folder.name}.lock", progress.say):
        if folder.exists() and not force:
            staging.forget_published()
            info = _open_existing(folder, name, chosen, RECIPES[name].describe(texts, wishes))
            progress.say(f"is in {folder} already, made from {info.source['description']}")
            return info
        check_replaceable(folder)
        source = RECIPES[name].source(Request(texts, folder.parent / "downloads", wishes, progress))
        context = Context(name, folder.name, staging, options, progress, workers, shard_bytes, gpt2_bpe)
        if isinstance(source, ChatSource):
            build_chat(context, source)
        elif isinstance(source, TokenFiles):
            build_token_files(context, source)
        else:
            build_text(context, source)
        staging.publish(folder)
        progress.say(f"ready in {folder}")
        return read_dataset(folder)


def _recipe_options(name: str, given: Options) -> Options:
    """The recipe's options with the user's choices. ValueError for one that it does not take."""
    known = RECIPES[name].options
    for key, value in given.items():
        if key not in known:
            takes = ", ".join(known) or "no options of its own"
            raise ValueError(f"{name} takes no {key} (got {value!r}); it takes {takes}.")
    share = given.get("val_one_in")
    if share is not None and share < 2:
        raise ValueError(f"val_one_in is {share}, expected at least 2: one document in so many is held out.")
    return known | given


def _default_name(name: str, texts: Sequence[Path]) -> str:
    """A text's dataset is called like its first file or folder, one of the hub like its name without the owner."""
    if name not in NEEDS_TEXTS or not texts:
        return name
    is_file = texts[0].is_file() or (name == "text" and not texts[0].is_dir())  # one that is missing counts as one
    found = own_name(texts[0])
    if is_file:
        packed = Path(found).suffix in COMPRESSED  # pages.jsonl.zst gives the same as pages.jsonl
        found = Path(Path(found).stem).stem if packed else Path(found).stem
    if not found:
        raise DatasetError(f"{texts[0]}: has no name that the dataset could have. Choose a folder: --out.")
    if found in RECIPES:
        raise DatasetError(f"{texts[0]}: the dataset would be called {found!r} like a recipe. Choose a folder: --out.")
    return found


def _open_existing(folder: Path, recipe: str, chosen: Options, description: str | None) -> DatasetInfo:
    """The dataset in `folder`. DatasetError if it is not what a preparation would make.

    chosen: the options that the user named; description: of its source, None if any is right.
    """
    if not (folder / DESCRIPTION_FILE).exists():
        raise DatasetError(f"{folder}: exists and is no dataset. Choose another folder with --out, or remove it.")
    info = read_dataset(folder)
    differences = [("recipe", info.source.get("recipe", recipe), recipe)]
    differences += [(key, _recorded(info, key, value), value) for key, value in chosen.items()]
    if description is not None:
        differences.append(("source", info.source["description"], description))
    for key, found, wanted in differences:
        if found != wanted:
            raise DatasetError(
                f"{folder}: was prepared with {key} = {found!r}, not {wanted!r}. Choose another folder with --out, or "
                "replace it with --force."
            )
    return info


def _recorded(info: DatasetInfo, key: str, wanted: Any) -> Any:
    """What a dataset was prepared with; `wanted` if that means the same."""
    found = info.options.get(key)
    if key == "tokenizer" and wanted not in TOKENIZERS:
        if is_same_tokenizer(wanted, info.load_tokenizer()):
            return wanted
        return f"{found} with other files" if found == wanted else found
    if key == "val_one_in" and found is None and info.boundary is not None:
        return RECIPES[info.source["recipe"]].val_one_in
    return found
