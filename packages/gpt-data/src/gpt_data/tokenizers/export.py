"""A BPE vocabulary in Hugging Face's format."""

from __future__ import annotations

import json
from pathlib import Path

from .bpe import BPETokenizer
from .huggingface import HF_CONFIG_FILE, HF_FILE


def export_to_huggingface(tokenizer: BPETokenizer, folder: Path | str) -> Path:
    """Write a BPE vocabulary as `tokenizer.json` and `tokenizer_config.json`, for transformers and `tokenizers`.

    Every way to put a token together from two others becomes a merge, in the order of ranks: so they pick the pair that
    tiktoken picks. Returns the path of the first file.
    """
    ((eot, eot_id),) = tokenizer.special_tokens.items()
    spelled = _byte_characters()
    names = {token: "".join(spelled[byte] for byte in token) for token in tokenizer.ranks}
    merges = [
        [names[token[:cut]], names[token[cut:]]]
        for token in sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in names and token[cut:] in names
    ]
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    end = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": eot_id, "content": eot, **end}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {names[token]: rank for token, rank in tokenizer.ranks.items()},
            "merges": merges,
        },
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eot, "bos_token": eot}
    (folder / HF_CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / HF_FILE).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder / HF_FILE


def _byte_characters() -> dict[int, str]:
    """How byte-level vocabularies spell bytes: printable Latin-1 as itself, the others from U+0100 on, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}
