"""From token ids to text, one token at a time: no half characters, nothing past a stop string."""

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]

UNFINISHED = "\ufffd"
"""What a tokenizer's decode gives for bytes that are not (yet) a character."""
CONTEXT = 8
"""How many finished tokens are decoded along with the new ones, for tokenizers that look to the left."""
RESTART = 64
"""After this many tokens the window of `IncrementalDecoder` moves on, which bounds the cost per token."""


class IncrementalDecoder:
    """Turns a stream of token ids into text that only ever grows.

    A byte-level tokenizer splits characters over tokens, and decoding a part of one gives U+FFFD. A trailing
    U+FFFD is therefore held back until the next token shows whether the character gets finished: the UTF-8
    decoder writes one U+FFFD for an unfinished sequence, so earlier ones are final.

    Args:
        decode: ids to text; invalid bytes must become U+FFFD (errors="replace"), not raise.
        prompt_ids: what came before; not returned, but decoded along for the spacing of the first word.
    """

    def __init__(self, decode: Decode, prompt_ids: Sequence[int] = ()):
        self._decode = decode
        self._ids = list(prompt_ids[-CONTEXT:])
        self._done = len(decode(self._ids).removesuffix(UNFINISHED)) if self._ids else 0
        self._fresh = 0  # tokens since the window last moved

    def push(self, token: int) -> str:
        """Text that this token finished; may be empty."""
        self._ids.append(token)
        self._fresh += 1
        text = self._decode(self._ids)
        new = text.removesuffix(UNFINISHED)[self._done :]
        self._done += len(new)
        if self._fresh >= RESTART and not text.endswith(UNFINISHED):
            self._ids = self._ids[-CONTEXT:]
            self._done = len(self._decode(self._ids))
            self._fresh = 0
        return new


class TextStream:
    """Decodes one row of a generation and watches for stop strings.

    `push(token)` returns text that is safe to show: an end that could still become a stop string is held
    back. Once a stop string has appeared, `stopped` is True and the text ends right before it. `close()`
    returns what was held back; an unfinished character at the very end is dropped.
    """

    def __init__(self, decode: Decode, prompt_ids: Sequence[int] = (), stop: Sequence[str] = ()):
        if any(not text for text in stop):
            raise ValueError("a stop string is empty: it would stop every generation before its first token")
        self.stopped = False
        self._decoder = IncrementalDecoder(decode, prompt_ids)
        self._stop = tuple(stop)
        self._held = ""

    def push(self, token: int) -> str:
        """Text that became safe to show with this token; may be empty."""
        assert not self.stopped, "this text has ended at a stop string"
        text = self._held + self._decoder.push(token)
        ends = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        safe = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[safe:]
        return text[:safe]

    def close(self) -> str:
        """The rest, when generation ended for another reason than a stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
