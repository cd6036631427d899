"""The continuation's tokens in what a server echoes of a prompt: found by character, refused off a token's edge."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt_eval.errors import EvaluationError
from gpt_eval.model import Scored


def echoed_scores(answer: Mapping[str, Any], text: str, start: int) -> Scored:
    """Scores of the tokens from character `start` of `text` to its end.

    answer: a choice's `logprobs` as `/completions` gives it with echo: tokens, token_logprobs, top_logprobs and
    perhaps text_offset. What the server generated after the text is left out; a start token before it, too.

    Greedy means that no other token is more likely: the top-1 alternative is not above the token itself.

    Raises EvaluationError where the echo is not the text, or no token begins at `start` (the server then scored
    something else than was asked), or a log-probability is missing.
    """
    tokens, logprobs = answer.get("tokens"), answer.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(logprobs, list) or len(tokens) != len(logprobs):
        raise EvaluationError("the server's echo has no tokens with log-probabilities; it cannot score")
    offsets, end = _offsets(tokens, answer.get("text_offset"), text)
    if start not in offsets[:end]:
        near = text[max(0, start - 20) : start] + "|" + text[start : start + 20]
        raise EvaluationError(
            f"no token of the server begins where the continuation does ({near!r}): its tokenizer joins them, and "
            "a part of a token has no probability of its own; use a continuation delimiter that separates them, or "
            "score with a local backend"
        )
    first = offsets.index(start)
    span = logprobs[first:end]
    if any(not isinstance(x, (int, float)) or not np.isfinite(x) for x in span):
        raise EvaluationError(f"the server gives no finite log-probability for a token of {text[start:]!r}")
    tops: Sequence[Any] = answer.get("top_logprobs") or []
    if len(tops) != len(tokens):
        raise EvaluationError("the server's echo has no top_logprobs; whether a token is the likeliest is not known")
    greedy = [_is_top(top, logprob) for top, logprob in zip(tops[first:end], span, strict=True)]
    return Scored(np.array(span, dtype=np.float32), np.array(greedy, dtype=bool))


def _offsets(tokens: Sequence[str], claimed: Any, text: str) -> tuple[list[int], int]:
    """Where each token begins in the text (-1 before it), and the number of the first token after it.

    The tokens' own texts say so if they spell the text; else the server's offsets, if they cover it.
    """
    for skipped in (0, 1):  # a start token that the server put before the text
        offsets, place = [-1] * skipped, 0
        for i, token in enumerate(tokens[skipped:], start=skipped):
            if place == len(text):
                return [*offsets, *([len(text)] * (len(tokens) - i))], i
            if not token or not text.startswith(token, place):
                break
            offsets.append(place)
            place += len(token)
        else:
            if place == len(text):
                return offsets, len(tokens)
    if isinstance(claimed, list) and len(claimed) == len(tokens) and claimed == sorted(claimed):
        end = next((i for i, offset in enumerate(claimed) if offset >= len(text)), len(tokens))
        spelled = all(
            text.startswith(token, offset) or _is_part(token)
            for token, offset in zip(tokens[:end], claimed[:end], strict=True)
        )
        # Some servers count the replacement mark as a character: their offsets reach the text's end before its tokens.
        ends_there = len(tokens) - end <= 1 and not (_is_part(tokens[end - 1]) and any(map(_is_part, tokens[end:])))
        if spelled and end and claimed[0] == 0 and ends_there:
            return claimed, end
    raise EvaluationError(
        "the server's echo does not spell the text it was sent (cut, or changed by its tokenizer): "
        f"sent {len(text)} characters, got {len(''.join(tokens))}; a score of it would be another text's"
    )


def _is_part(token: str) -> bool:
    """A part of a character ("bytes:...", the replacement mark), which cannot be compared with the text."""
    return "�" in token or token.startswith("bytes:")


def _is_top(alternatives: Mapping[str, float] | None, logprob: float) -> bool:
    """The most likely alternative is no likelier than the token itself."""
    if not alternatives:
        raise EvaluationError("the server's echo lacks the likeliest alternative of a token")
    return logprob >= max(alternatives.values())
