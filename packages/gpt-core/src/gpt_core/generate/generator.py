"""Generator: text in, text out, from a model in memory or from a run on disk."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from .decoder import config_of
from .engine import Overflow, Reason, stream
from .sampling import Sampling
from .text import TextStream

_log = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """What a generator asks of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eot_id(self) -> int | None: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Piece:
    """A bit of text that one sample grew by; `reason` is set on the last one of the sample."""

    row: int
    text: str
    tokens: int
    """1 for a new token (its text may come later), 0 where only held-back text comes or a sample ends."""
    reason: Reason | None = None


class Generator:
    """Continues texts with a model.

    Args:
        model: a model with gpt_core's forward and `.config`.
        tokenizer: the one that the model was trained with.
        device, dtype: where and in what precision to run; None leaves the model as it is.
        notify: told once per call, in a sentence, when something makes it slow (default: a log warning).

    >>> generator = Generator.from_run("out/my-run", load_tokenizer=gpt_data.load_tokenizer)
    >>> generator.generate("def ", max_new_tokens=100, temperature=0.8, top_k=200, seed=1337)
    ['def ...']
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        notify: Callable[[str], None] = _log.warning,
    ):
        vocab_size = config_of(model).vocab_size
        if tokenizer.vocab_size > vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model knows {vocab_size}: "
                "the model was trained with another one"
            )
        moves = device is not None or dtype is not None  # even an idle `to` makes FSDP shard gathered weights anew
        self.model = model.to(device=device, dtype=dtype) if moves else model
        self.tokenizer = tokenizer
        self._notify = notify

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        checkpoint: str = "latest",
        *,
        load_tokenizer: Callable[[Path], Tokenizer],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        trusted: Sequence[str] = (),
        notify: Callable[[str], None] = _log.warning,
    ) -> Self:
        """Load a checkpoint and the tokenizer that its run kept.

        Args:
            path: a run folder, a checkpoint folder in one, or a folder of runs (the newest run is taken).
            checkpoint: "latest", "best", or the name of a checkpoint ("step_000500" or "500").
            load_tokenizer: opens the run's tokenizer folder, e.g. gpt_data.load_tokenizer.
            trusted: packages, besides ours, whose model factories a checkpoint may call.

        Raises CheckpointError (a ValueError) that lists what is there, when there is no such checkpoint.
        """
        from gpt_core.checkpoint.model_file import TRUSTED, load_model

        run, folder = locate(path, checkpoint)
        model = load_model(folder, device, trusted=(*TRUSTED, *trusted))
        return cls(model, load_tokenizer(run / "tokenizer"), dtype=dtype, notify=notify)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_at_eot: bool = True,
        num_samples: int = 1,
        overflow: Overflow = "crop",
        cache: bool = True,
    ) -> list[str]:
        """Continue each prompt; the returned texts begin with their prompt.

        Args:
            prompts: one text or several; all are generated as one batch.
            max_length: limit in tokens, prompt included (give this or max_new_tokens).
            max_new_tokens: limit in tokens, prompt not included.
            temperature, top_k, top_p, repetition_penalty: see `Sampling`.
            seed: same seed, same prompts, same texts; None draws from torch's default generator.
            stop: texts at which a sample ends; they are not part of it.
            stop_at_eot: end a sample at the tokenizer's end-of-text token.
            num_samples: samples per prompt, next to each other in the result.
            overflow: what to do past the model's context: "crop", "stop" or "slide" (see `stream`).

        Raises ValueError for an empty prompt, a character that the tokenizer does not know, or settings out
        of range.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        parts = [[text] for text in texts for _ in range(num_samples)]
        for piece in self.stream(
            texts,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
            stop_at_eot=stop_at_eot,
            num_samples=num_samples,
            overflow=overflow,
            cache=cache,
        ):
            parts[piece.row].append(piece.text)
        return ["".join(part) for part in parts]

    def stream(
        self,
        prompts: str | Sequence[str],
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_at_eot: bool = True,
        num_samples: int = 1,
        overflow: Overflow = "crop",
        cache: bool = True,
        **sampling: Any,
    ) -> Iterator[Piece]:
        """Like `generate`, piece by piece as the text grows, prompts not included.

        The pieces of a row joined are its completion: no piece holds half a character, nor anything from a
        stop text on.
        """
        prompt_ids = [self.encode(text) for text in ([prompts] if isinstance(prompts, str) else prompts)]
        budgets = _budgets(prompt_ids, max_length, max_new_tokens)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        eot = self.tokenizer.eot_id
        watcher = _Watcher(self.tokenizer, [ids for ids in prompt_ids for _ in range(num_samples)], stops)
        steps = stream(
            self.model,
            prompt_ids,
            budgets,
            sampling=Sampling(**sampling),
            seed=seed,
            num_samples=num_samples,
            stop_ids=[eot] if stop_at_eot and eot is not None else [],
            stop_when=watcher.stops,
            vocab_size=self.tokenizer.vocab_size,
            cache=cache,
            overflow=overflow,
            notify=self._notify,
        )
        return (
            Piece(step.row, watcher.take(step.row, step.reason), int(step.token is not None), step.reason)
            for step in steps
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt; an empty one becomes the end-of-text token, which starts a new document.

        ValueError for text that the tokenizer cannot encode.
        """
        try:
            ids = list(self.tokenizer.encode(text))
        except KeyError as error:  # a plain dict of characters, as nanoGPT's meta.pkl holds
            raise ValueError(f"the tokenizer does not know {error.args[0]!r} in the prompt {text!r}") from error
        if ids:
            return ids
        if self.tokenizer.eot_id is None:
            raise ValueError('the prompt is empty and this tokenizer has no start token; try "\\n"')
        return [self.tokenizer.eot_id]


class _Watcher:
    """The text of every row as it grows; tells the engine when a stop text has appeared."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: list[list[int]], stops: Sequence[str]):
        self._streams = [TextStream(tokenizer.decode, ids, stops) for ids in prompt_ids]
        self._ready = [""] * len(prompt_ids)

    def stops(self, row: int, token: int) -> bool:
        self._ready[row] += self._streams[row].push(token)
        return self._streams[row].stopped

    def take(self, row: int, reason: Reason | None) -> str:
        """Text of this row since the last call, and all that was held back if the row has ended."""
        text, self._ready[row] = self._ready[row], ""
        return text if reason is None else text + self._streams[row].close()


def locate(path: str | Path, checkpoint: str = "latest") -> tuple[Path, Path]:
    """(run folder, checkpoint folder) for a run, a checkpoint folder, or a folder of runs.

    CheckpointError where there is none.
    """
    from gpt_core.checkpoint import find_checkpoint, newest_run

    path = Path(path)
    if (path / "meta.json").is_file():
        folder = path.resolve()
        inside_run = folder.parent.name == "checkpoints"
        return (folder.parent.parent if inside_run else folder), folder
    if not path.is_dir() or (path / "checkpoints").is_dir():
        return path, find_checkpoint(path, checkpoint)
    run = newest_run(path)
    return run, find_checkpoint(run, checkpoint)


def _budgets(prompt_ids: list[list[int]], max_length: int | None, max_new_tokens: int | None) -> list[int]:
    """New tokens that each prompt may get."""
    if (max_length is None) == (max_new_tokens is None):
        raise ValueError("give either max_length (prompt included) or max_new_tokens (prompt not included)")
    if max_new_tokens is not None:
        return [max_new_tokens] * len(prompt_ids)
    assert max_length is not None
    longest = max(map(len, prompt_ids), default=0)
    if longest >= max_length:
        raise ValueError(f"a prompt has {longest} tokens, which leaves nothing to generate of max_length={max_length}")
    return [max_length - len(ids) for ids in prompt_ids]
