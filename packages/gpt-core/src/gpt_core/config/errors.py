"""The one error of this package, and the "did you mean" behind its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration that cannot be used: says where, which key, what was wanted and what to do."""


def nearest(word: str, options: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the option most like `word`, or an empty string.

    Of dotted keys the last part counts first, among the keys beside it: a shared long prefix is no likeness.
    """
    options = [str(option) for option in options]
    parent, _, last = word.rpartition(".")
    beside = {option.rpartition(".")[2]: option for option in options if option.rpartition(".")[0] == parent}
    anywhere = {option.rpartition(".")[2]: option for option in options}
    for names, sought, likeness in ((beside, last, 0.6), (dict(zip(options, options, strict=True)), word, 0.85)):
        close = difflib.get_close_matches(sought, names, n=1, cutoff=likeness)
        if close:
            return f"; did you mean {names[close[0]]!r}?"
    close = difflib.get_close_matches(last, anywhere, n=1, cutoff=0.75)  # the right word in the wrong section
    return f"; did you mean {anywhere[close[0]]!r}?" if close else ""
