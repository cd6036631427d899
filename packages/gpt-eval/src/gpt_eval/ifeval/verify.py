"""Was a prompt's list of instructions followed, strictly and loosely."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt_eval.ifeval import checks
from gpt_eval.ifeval.sentences import Sentences


@dataclass(frozen=True)
class Verdict:
    """One response against its instructions, in their order; None where one cannot be checked here."""

    strict: tuple[bool | None, ...]
    loose: tuple[bool | None, ...]
    unscored: str | None = None

    @property
    def scorable(self) -> bool:
        return None not in self.strict


def loose_variants(response: str) -> list[str]:
    """The response; it without its first line, its last, both (stripped); each also without stars. No blank ones."""
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    variants = [response, *cut]
    variants += [variant.replace("*", "") for variant in variants]
    return [variant for variant in variants if variant.strip()]


def check_instruction(
    name: str, response: str, given: Mapping[str, Any], splitter: Sentences | None
) -> tuple[bool | None, bool | None]:
    """(strict, loose) for one instruction; a blank response follows none.

    What cannot be checked here is None for every response, so that models are scored on the same prompts.
    """
    if checks.CHECKS[name].splits and splitter is None:
        return None, None
    strict = bool(response.strip()) and checks.holds(name, response, given, splitter)
    if strict:
        return True, True
    return strict, any(checks.holds(name, variant, given, splitter) for variant in loose_variants(response))


def verify(
    response: str,
    instructions: Sequence[str],
    arguments: Sequence[Mapping[str, Any]],
    splitter: Sentences | None = None,
) -> Verdict:
    """Checks a response against all instructions of its prompt.

    arguments: the row's `kwargs`, one mapping per instruction.
    splitter: for the instructions that count sentences or capital words; None leaves them unscored.
    """
    pairs = [
        check_instruction(name, response, given, splitter) for name, given in zip(instructions, arguments, strict=True)
    ]
    lacking = [name for name, (strict, _) in zip(instructions, pairs, strict=True) if strict is None]
    return Verdict(
        strict=tuple(strict for strict, _ in pairs),
        loose=tuple(loose for _, loose in pairs),
        unscored=f"{', '.join(lacking)}: no Punkt parameters" if lacking else None,
    )
