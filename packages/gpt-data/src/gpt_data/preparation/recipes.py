"""The datasets that have a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import DatasetError
from .download import download, file_sha256
from .hub import hub_files, local_files
from .installed import docs_source, packages_source
from .mixture import ChatSource, task_mixture_source
from .plan import VAL_ONE_IN, Join
from .sources import Request, Source, stdlib_source, text_source
from .tables import find_field
from .token_files import TokenFiles, speedrun_files
from .wikitext import articles

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
    if texts[0].is_file() and file_sha256(texts[0]) == SHAKESPEARE_SHA256:
        return text_source(texts, "Tiny Shakespeare", "public domain")
    return text_source(texts)


def _text(request: Request) -> Source:
    if not request.texts:
        raise DatasetError("text needs files or folders: text PATH...")
    source = text_source(request.texts, text_field=request.options["text_field"])
    return replace(source, val_one_in=request.options["val_one_in"] or VAL_ONE_IN)


def _hub(names: Mapping[str | None, tuple[str, str | None]], join: Join | None = None) -> Callable[[Request], Source]:
    """A recipe of the hub. names: subset -> (repository, its name there)."""

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
    return _hub_source(replace(request, texts=copies), str(name), request.options["subset"], None)


def _hub_source(request: Request, repository: str, subset: str | None, join: Join | None) -> Source:
    found = (
        local_files(request.texts, subset)
        if request.texts
        else hub_files(repository, subset, request.options["revision"])
    )
    request.progress.say(", ".join(f"{split}: {len(files)} files" for split, files in found.splits.items()))
    if found.ignored:
        request.progress.say(f"left out: the splits {', '.join(found.ignored)}")
    return Source(
        description=f"{repository}{f' ({subset})' if subset else ''}",
        license=found.license,
        tables=tuple(find_field(table, request.options["text_field"]) for table in found.all_tables()),
        join=join,
        val_one_in=request.options["val_one_in"] or FEW,
        details={"hub": dict(found.details)},
    )


def _hub_options(subset: str | None, **more: Any) -> dict[str, Any]:
    return {"subset": subset, "revision": None, "text_field": None, "val_one_in": None, **more}


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
        "Tiny Shakespeare, 1.1 MB, in GPT-2's vocabulary (download, or --text FILE)", "gpt2", _shakespeare
    ),
    "shakespeare_char": Recipe(
        "Tiny Shakespeare, one id per character (download, or --text FILE)", "char", _shakespeare
    ),
    "text": Recipe(
        "your own files and folders, text, jsonl, parquet: text PATH...",
        "bpe",
        _text,
        {"text_field": None, "val_one_in": None},
    ),
    "openwebtext": Recipe(
        "OpenWebText, 9 G tokens (hub)",
        "gpt2",
        _hub({None: ("Skylion007/openwebtext", None)}),
        _hub_options(None),
    ),
    "fineweb_edu": Recipe(
        "FineWeb-Edu: --subset sample-10BT, sample-100BT, sample-350BT, default (hub)",
        "gpt2",
        _hub(FINEWEB_EDU),
        _hub_options("sample-10BT"),
    ),
    "fineweb10B": Recipe(
        "FineWeb, the speedrun's token shards: --chunks N of 100 M tokens, 9 by default (hub)",
        "gpt2",
        speedrun_files,
        {"chunks": SPEEDRUN_CHUNKS, "revision": None},
    ),
    "slimpajama": Recipe("SlimPajama: --subset 6B, 627B (hub)", "gpt2", _hub(SLIMPAJAMA), _hub_options("6B")),
    "wikitext": Recipe(
        f"WikiText, articles: --subset {', '.join(map(str, WIKITEXT))} (hub)",
        "gpt2",
        _hub(WIKITEXT, articles),
        _hub_options("wikitext-103-raw-v1"),
    ),
    "task_mixture": Recipe(
        "conversations for mid-training: SmolTalk, MMLU, GSM8K, with loss masks (hub)",
        "gpt2",
        task_mixture_source,
        {"template": "chatml", "val_from": "test", "allow_missing": False},
    ),
    "hf": Recipe("any text dataset of the hub: hf OWNER/NAME --subset S", "gpt2", _any_hub, _hub_options(None)),
}
PREPARED_ON_FIRST_USE = ("stdlib",)
"""Names that need neither a network nor arguments."""
NEEDS_TEXTS = ("text", "hf")
"""Recipes that are nothing without arguments."""
