"""Which language a text is in, always the same answer for the same text."""

from types import ModuleType


class Unscorable(Exception):
    """An instruction that cannot be checked here: what it needs is missing. Never counted as passed or failed."""


def detect_language(text: str) -> str | None:
    """The code that langdetect gives ("en", "zh-cn"), None where it finds no language in the text.

    langdetect draws at random; its seed is set to 0, so a text has one language.
    """
    langdetect = installed()
    langdetect.DetectorFactory.seed = 0
    try:
        return langdetect.detect(text)
    except langdetect.LangDetectException:
        return None


def installed() -> ModuleType:
    """langdetect. Raises ModuleNotFoundError that says how to get it."""
    try:
        import langdetect
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'IFEval detects languages with langdetect: pip install "gpt-eval[ifeval]"', name=error.name
        ) from error
    return langdetect
