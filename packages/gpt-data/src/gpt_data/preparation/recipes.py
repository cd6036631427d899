"""The datasets that have a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .conversations import conversations_source
from .download import download, file_sha256
from .hub import hub_files, local_files
from .installed import docs_source, packages_source
from .mixture import ChatSource, task_mixture_source
from .plan import VAL_ONE_IN, Join
from .sources import Request, Source, own_name, stdlib_source, text_source, texts_description
from .tables import find_field
from .token_files import TokenFiles, speedrun_files
from .wikitext import articles

SHAKESPEARE = "Tiny Shakespeare"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
FEW = 2000
"""One document in so many is for validation where there are millions: nanoGPT's share of .0005."""
SPEEDRUN_CHUNKS = 9
"""900 M tokens, what modded-nanogpt fetches by default."""


AnySource = Source | ChatSource | TokenFiles


@dataclass(frozen=True)
class Recipe:
    """How a named dataset is made."""

    summary: str
    tokenizer: str
    """Used if the user names none."""
    source: Callable[[Request], AnySource]
    options: dict[str, Any] = field(default_factory=dict)
    """The options that it takes, and what they are if the user says nothing."""
    describe: Callable[[Sequence[Path], Mapping[str, Any]], str | None] = lambda texts, options: None
    """The source's description, found without reading it, where the user's texts decide about it; else None."""
    val_one_in: int = VAL_ONE_IN
    """One document in so many is held out if the user says nothing."""


def _stdlib(request: Request) -> Source:
    _takes_no_texts(request, "stdlib", "it reads the Python library")
    return stdlib_source()


def _docs(request: Request) -> Source:
    _takes_no_texts(request, "docs", "it reads docstrings")
    return docs_source(request.progress)


def _packages(request: Request) -> Source:
    _takes_no_texts(request, "site-packages", "it reads the installed packages")
    return packages_source()


def _takes_no_texts(request: Request, name: str, what: str) -> None:
    if request.texts:
        raise DatasetError(f"{name} takes no texts, {what}. For your own: text PATH...")


def _shakespeare(request: Request) -> Source:
    texts = list(request.texts)
    if len(texts) > 1:
        raise DatasetError(f"shakespeare is a single file, got {len(texts)}. For several: text PATH...")
    if not texts:
        texts = [download(SHAKESPEARE_URL, SHAKESPEARE_SHA256, request.downloads / "tinyshakespeare.txt")]
    description = _describe_shakespeare(texts, {})
    return text_source(texts, description, "public domain" if description == SHAKESPEARE else "unknown")


def _describe_shakespeare(texts: Sequence[Path], options: Mapping[str, Any]) -> str | None:
    if not texts:
        return None
    known = texts[0].is_file() and file_sha256(texts[0]) == SHAKESPEARE_SHA256
    return SHAKESPEARE if known else texts_description(texts)


def _text(request: Request) -> Source:
    if not request.texts:
        raise DatasetError("text needs files or folders: text PATH...")
    one_in = request.options["val_one_in"]
    source = text_source(request.texts, text_field=request.options["text_field"])
    if one_in is not None and not source.tables and len(source.documents) == 1:
        raise DatasetError(f"val_one_in is {one_in}, but a single text is not held out by hash: its last tenth is.")
    return replace(source, val_one_in=one_in or VAL_ONE_IN)


Names = Mapping[str | None, tuple[str, str | None]]
"""Subset -> (repository, its name there)."""


def _hub_recipe(summary: str, names: Names, subset: str | None, join: Join | None = None) -> Recipe:
    """A recipe of the hub; `subset` if the user names none."""

    def describe(texts: Sequence[Path], options: Mapping[str, Any]) -> str | None:
        return _describe_hub(texts, *names[options["subset"]]) if texts and options["subset"] in names else None

    return Recipe(summary, "gpt2", _hub(names, join), _hub_options(subset), describe, FEW)


def _hub(names: Names, join: Join | None) -> Callable[[Request], Source]:

    def source(request: Request) -> Source:
        subset = request.options["subset"]
        if subset not in names:
            raise DatasetError(f"subset is {subset!r}, expected one of {', '.join(map(str, names))}.")
        return _hub_source(request, *names[subset], join)

    return source


def _any_hub(request: Request) -> Source:
    if not request.texts:
        raise DatasetError("hf needs the name of a dataset: hf OWNER/NAME, or a folder laid out like its repository.")
    name, *copies = request.texts
    subset = request.options["subset"]
    source = _hub_source(replace(request, texts=copies), str(name), subset, None)
    if source.details["hub"].get("subset", subset) != subset:
        raise DatasetError(f"subset is {subset!r}, but the README of the folder lists no subsets. Leave it out.")
    return source


def _describe_any_hub(texts: Sequence[Path], options: Mapping[str, Any]) -> str | None:
    return _describe_hub(texts[1:], str(texts[0]), options["subset"]) if texts else None


def _describe_hub(copies: Sequence[Path], repository: str, subset: str | None) -> str:
    """A repository, or the user's copies of its files, about which nobody else knows anything."""
    folder = Path(repository)
    what = f"{own_name(folder) if folder.is_dir() else repository}{f' ({subset})' if subset else ''}"
    return f"copies of {what}: {', '.join(map(own_name, copies))}" if copies else what


def _hub_source(request: Request, repository: str, subset: str | None, join: Join | None) -> Source:
    if (revision := request.options["revision"]) is not None and (request.texts or Path(repository).is_dir()):
        raise DatasetError(f"revision is {revision!r}, but nothing is downloaded: the files are copies.")
    found = local_files(request.texts, subset) if request.texts else hub_files(repository, subset, revision)
    request.progress.say(", ".join(f"{split}: {len(files)} files" for split, files in found.splits.items()))
    if found.ignored:
        request.progress.say(f"left out: the splits {', '.join(found.ignored)}")
    if subset is not None and found.root is not None and found.details["subset"] is None:
        request.progress.say(f"{found.root.name} has no subsets, so all that is in it counts as {subset!r}")
    tables, one_in = found.all_tables(), request.options["val_one_in"]
    if one_in is not None and all(table.split is not None for table in tables):
        raise DatasetError(f"val_one_in is {one_in}, but {repository} comes with its own validation split.")
    return Source(
        description=_describe_hub(request.texts, repository, subset),
        license=found.license,
        tables=tuple(find_field(table, request.options["text_field"]) for table in tables),
        join=join,
        val_one_in=one_in or FEW,
        details={"hub": dict(found.details)},
    )


def _hub_options(subset: str | None) -> dict[str, Any]:
    return {"subset": subset, "revision": None, "text_field": None, "val_one_in": None}


def _same_names(repository: str, *subsets: str) -> dict[str | None, tuple[str, str | None]]:
    return {subset: (repository, subset) for subset in subsets}


FINEWEB_EDU = _same_names(
    "HuggingFaceFW/fineweb-edu", "sample-10BT", "sample-100BT", "sample-350BT", "default"
)  # `default` is all of it
SLIMPAJAMA: dict[str | None, tuple[str, str | None]] = {
    "6B": ("DKYoon/SlimPajama-6B", None),
    "627B": ("cerebras/SlimPajama-627B", None),
}
WIKITEXT = _same_names(
    "Salesforce/wikitext", "wikitext-103-raw-v1", "wikitext-103-v1", "wikitext-2-raw-v1", "wikitext-2-v1"
)

RECIPES: dict[str, Recipe] = {
    "stdlib": Recipe("the Python library on this machine: code and its reference (no network)", "bpe", _stdlib),
    "docs": Recipe("docstrings of all Python code on this machine, the language reference (no network)", "bpe", _docs),
    "site-packages": Recipe("the sources of the installed packages (no network)", "bpe", _packages),
    "shakespeare": Recipe(
        "Tiny Shakespeare, 1.1 MB, in GPT-2's vocabulary (download, or --text FILE)",
        "gpt2",
        _shakespeare,
        describe=_describe_shakespeare,
    ),
    "shakespeare_char": Recipe(
        "Tiny Shakespeare, one id per character (download, or --text FILE)",
        "char",
        _shakespeare,
        describe=_describe_shakespeare,
    ),
    "text": Recipe(
        "your own files and folders, text, jsonl, parquet: text PATH...",
        "bpe",
        _text,
        {"text_field": None, "val_one_in": None},
        lambda texts, options: texts_description(texts),
    ),
    "openwebtext": _hub_recipe("OpenWebText, 9 G tokens (hub)", {None: ("Skylion007/openwebtext", None)}, None),
    "fineweb_edu": _hub_recipe(
        "FineWeb-Edu: --subset sample-10BT, sample-100BT, sample-350BT, default (hub)", FINEWEB_EDU, "sample-10BT"
    ),
    "fineweb10B": Recipe(
        "FineWeb, the speedrun's token shards: --chunks N of 100 M tokens, 9 by default (hub)",
        "gpt2",
        speedrun_files,
        {"chunks": SPEEDRUN_CHUNKS, "revision": None},
    ),
    "slimpajama": _hub_recipe("SlimPajama: --subset 6B, 627B (hub)", SLIMPAJAMA, "6B"),
    "wikitext": _hub_recipe(
        f"WikiText, articles: --subset {', '.join(map(str, WIKITEXT))} (hub)", WIKITEXT, "wikitext-103-raw-v1", articles
    ),
    "task_mixture": Recipe(
        "conversations for mid-training: SmolTalk, MMLU, GSM8K, with loss masks (hub)",
        "gpt2",
        task_mixture_source,
        {"template": "chatml", "val_from": "test", "allow_missing": False},
    ),
    "chat": Recipe(
        "your own conversations, jsonl or parquet with `messages`, with loss masks: chat PATH...",
        "gpt2",
        conversations_source,
        {"template": "chatml", "val_one_in": None},
        lambda texts, options: texts_description(texts),
    ),
    "hf": Recipe(
        "any text dataset of the hub: hf OWNER/NAME --subset S",
        "gpt2",
        _any_hub,
        _hub_options(None),
        _describe_any_hub,
        FEW,
    ),
}
PREPARED_ON_FIRST_USE = ("stdlib",)
"""Names that need neither a network nor arguments."""
NEEDS_TEXTS = ("text", "chat", "hf")
"""Recipes that are nothing without arguments."""
