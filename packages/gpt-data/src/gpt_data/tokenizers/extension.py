"""Which ids of a tokenizer a model has met that was trained with an earlier one."""

from __future__ import annotations

from pathlib import Path

from .base import Tokenizer
from .fingerprint import fingerprint
from .load import load_tokenizer
from .special import SpecialTokenizer


def first_new_id(tokenizer: Tokenizer, trained: Path | str | None) -> int:
    """The first id of `tokenizer` that is new to a model; its vocabulary's size where none is.

    trained: the folder with the tokenizer that the model was trained with; None: weights came without one, and are
    taken to know all but the special tokens that were put on top.
    ValueError where an id would mean something else than it did to the model.
    """
    layers = [tokenizer]
    while isinstance(layers[-1], SpecialTokenizer):
        layers.append(layers[-1].base)
    if trained is None:
        return layers[-1].vocab_size
    before = load_tokenizer(Path(trained))
    known = fingerprint(before)
    for layer in layers:
        if fingerprint(layer) == known:
            return layer.vocab_size
    if isinstance(before, SpecialTokenizer) and fingerprint(before.base) == fingerprint(tokenizer):
        return tokenizer.vocab_size  # the model knows these, and more
    raise ValueError(
        f"the data's tokenizer {tokenizer.name!r} ({tokenizer.vocab_size} ids) does not extend the one that the "
        f"weights were trained with, {before.name!r} ({before.vocab_size} ids, {trained}): ids would mean something "
        f"else. Prepare the data with it: --tokenizer {trained}"
    )
