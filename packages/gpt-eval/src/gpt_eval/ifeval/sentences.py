"""Sentences and words of English, which two kinds of instruction count: NLTK's Punkt, or by request a regex.

Punkt's parameters are data that NLTK downloads separately (punkt_tab, English). A folder that has them is given by
path; without one these instructions are unscored.
"""

import re
from functools import cache
from pathlib import Path
from typing import Protocol

FILES = ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab")
PLACES = ("", "english", "punkt_tab/english", "tokenizers/punkt_tab/english")


class Sentences(Protocol):
    """Splits text as an instruction's count needs it."""

    name: str
    """For the result: counts of different splitters are not compared."""

    def sentences(self, text: str) -> list[str]: ...

    def words(self, text: str) -> list[str]: ...


class PunktSentences:
    """NLTK's Punkt for sentences and its word tokenizer for words, as lm-evaluation-harness and IFEval use them."""

    name = "punkt"

    def __init__(self, folder: str | Path):
        """folder: has punkt_tab's files for English, or has them at a usual place below.

        Raises ValueError where they are missing.
        """
        try:
            from nltk.tokenize.destructive import NLTKWordTokenizer
            from nltk.tokenize.punkt import PunktSentenceTokenizer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'IFEval counts sentences with nltk: pip install "gpt-eval[ifeval]"', name=error.name
            ) from error
        self._sentences = PunktSentenceTokenizer(_parameters(find_punkt(folder)))
        self._words = NLTKWordTokenizer()

    def sentences(self, text: str) -> list[str]:
        return self._sentences.tokenize(text)

    def words(self, text: str) -> list[str]:
        return [word for sentence in self.sentences(text) for word in self._words.tokenize(sentence)]


class RegexSentences:
    """No Punkt: a sentence ends at . ! or ? before white space. Its counts differ; asked for by name only."""

    name = "regex"

    def sentences(self, text: str) -> list[str]:
        return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]

    def words(self, text: str) -> list[str]:
        return re.findall(r"\w+(?:[-'.]\w+)*|[^\w\s]", text)


def find_punkt(folder: str | Path) -> Path:
    """The folder with Punkt's four English files. Raises ValueError that says where it was looked for."""
    for place in PLACES:
        found = Path(folder) / place
        if all((found / name).is_file() for name in FILES):
            return found
    raise ValueError(
        f"no Punkt parameters for English in {folder}: expected {', '.join(FILES)} there or in one of "
        f"{', '.join(PLACES[1:])} below; they are NLTK's download punkt_tab"
    )


def _parameters(folder: Path):
    from nltk.tokenize.punkt import PunktParameters

    def lines(name: str) -> list[str]:
        return [line for line in (folder / name).read_text(encoding="utf-8").split("\n") if line]

    parameters = PunktParameters()
    parameters.collocations = {tuple(line.split("\t", 1)) for line in lines("collocations.tab")}
    parameters.sent_starters = set(lines("sent_starters.txt"))
    parameters.abbrev_types = set(lines("abbrev_types.txt"))
    for line in lines("ortho_context.tab"):
        word, context = line.rsplit("\t", 1)
        parameters.ortho_context[word] = int(context)
    return parameters


@cache
def splitter(punkt: str | None, fallback: str | None) -> Sentences | None:
    """The splitter of a task's options: Punkt from a folder, "regex" by request, None for neither."""
    if punkt is not None:
        return PunktSentences(punkt)
    if fallback is None:
        return None
    if fallback != "regex":
        raise ValueError(f'the fallback for Punkt is "regex" or none, got {fallback!r}')
    return RegexSentences()
