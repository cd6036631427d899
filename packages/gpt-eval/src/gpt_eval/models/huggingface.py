"""Models of transformers: an object or a folder, scored with shared beginnings and logits only where they are read."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from gpt_eval.errors import EvaluationError, UnsupportedByBackend
from gpt_eval.model import Message, Prompt, Scored

from .engine import score
from .generation import Decoding, generate
from .hf_network import HFNetwork, steady_length
from .network import evaluating
from .tokens import ALL, WITHOUT_CHAT, has_prefix_space, prompt_ids, tokenizer_hash


class HuggingFaceModel:
    """A causal language model and its tokenizer (satisfies `gpt_eval.LanguageModel`).

    Args:
        model: an `AutoModelForCausalLM` object, used as it is (in eval mode while it is asked), or a folder (or a hub
            name) that `from_pretrained` loads.
        tokenizer: an object or a folder; None takes the model's own folder. One that was made for another model is
            only noticed if it has more tokens.
        device: to move the model to; None leaves an object where it is, and loads a folder on CUDA if there is one.
        dtype: "float32", "bfloat16", ... or a torch dtype; None leaves an object as it is and loads a folder as saved.
        batch_tokens: tokens fed at a time; None chooses by device. Scores do not depend on it.
        max_length: tokens that context and continuation may have; None reads the model's configuration (of LongRoPE
            the length before scaling: beyond it a text's scores would depend on the others in its batch).
        name: for results; None takes the folder's name.

    Raises EvaluationError for a folder that holds no model or no tokenizer, for a tokenizer that does not fit, or for
    a model that is not causal.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_tokens: int | None = None,
        max_length: int | None = None,
        name: str | None = None,
    ):
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        source = model if isinstance(model, (str, PathLike)) else None
        if source is not None:
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            model = _load(source, dtype)
        if tokenizer is None or isinstance(tokenizer, (str, PathLike)):
            tokenizer = _load_tokenizer(tokenizer or source)
        self.model = model.to(device=device, dtype=dtype) if device is not None or dtype is not None else model
        self.tokenizer = tokenizer
        config = model.config.get_text_config(decoder=True)
        self.name = name or str(source or model.config.name_or_path or type(model).__name__)
        self.max_length = max_length or _context_length(config)
        steady = steady_length(config)
        if steady is not None and self.max_length > steady:
            if max_length is not None:
                raise EvaluationError(
                    f"{self.name}: max_length is {max_length}, and beyond {steady} tokens its rotary frequencies "
                    "change with the longest text of a batch, so that scores would depend on their company"
                )
            self.max_length = steady
        if len(tokenizer) > config.vocab_size and max(tokenizer.get_vocab().values()) >= config.vocab_size:
            raise EvaluationError(
                f"the tokenizer has {len(tokenizer)} tokens and {self.name} knows {config.vocab_size}: "
                "give the tokenizer that the model was trained with"
            )
        self.eot_id: int | None = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        self.prefix_space = has_prefix_space(self.encode)
        with evaluating(self.model):
            self._network = HFNetwork(self.model, context=self.max_length)
        self._batch_tokens = batch_tokens or (4096 if self._network.device.type == "cpu" else 32768)
        self.supports = ALL if tokenizer.chat_template else WITHOUT_CHAT
        self.tools = False

    @property
    def dtype(self) -> str:
        """Of the weights, as they are now."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def tokenizer_hash(self) -> str:
        """sha256 over all tokens."""
        return tokenizer_hash(lambda ids: self.tokenizer.decode(ids), len(self.tokenizer))

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Token ids; specials: with those that the tokenizer adds by itself."""
        return self.tokenizer(text, add_special_tokens=specials, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens, spaces as they are."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """See `LanguageModel.score`."""
        with evaluating(self.model):
            return score(self._network, requests, max_length=self.max_length, batch_tokens=self._batch_tokens)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokenizer's own chat template up to where the assistant begins. UnsupportedByBackend without one."""
        if not self.tokenizer.chat_template:
            raise UnsupportedByBackend(
                f"{self.name} has no chat template, so it cannot take part in a conversation; "
                "give a tokenizer that has one (`chat_template`), or run tasks for base models"
            )
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
        )
        return self.encode(text)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stops: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        n: int = 1,
    ) -> list[list[str]]:
        """See `LanguageModel.generate`."""
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        ends = [self.eot_id, *(ends if isinstance(ends, list) else [ends])]
        end_ids = frozenset(end for end in ends if end is not None)
        decoding = Decoding(max_new_tokens, temperature, top_p, top_k, seed, n, tuple(stops), end_ids)
        with evaluating(self.model):
            rows = generate(
                self._network,
                [prompt_ids(prompt, self.chat_ids) for prompt in prompts],
                decoding,
                self.decode,
                max_length=self.max_length,
                batch_tokens=self._batch_tokens,
            )
        return [[self.decode(ids) for ids in samples] for samples in rows]


def _load(source: str | PathLike[str], dtype: torch.dtype | None) -> Any:
    from transformers import AutoModelForCausalLM

    looks_local = str(source).startswith((".", "/", "~")) or str(source).count("/") > 1
    if looks_local and not Path(source).is_dir():
        raise EvaluationError(f"{source}: no such folder; give one that save_pretrained wrote, or a name on the Hub")
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype or "auto")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{source} holds no causal language model that transformers can load: {error}") from error


def _load_tokenizer(source: str | PathLike[str] | None) -> Any:
    from transformers import AutoTokenizer

    if source is None:
        raise EvaluationError("a model object comes without its tokenizer; give one, or the folder it was saved in")
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{source} holds no tokenizer that transformers can load: {error}") from error


def _context_length(config: Any) -> int:
    """Tokens that the model was built for, by the names that configurations use."""
    for key in ("n_positions", "max_position_embeddings", "n_ctx", "seq_length", "max_seq_len"):
        if isinstance(length := getattr(config, key, None), int) and length > 0:
            return length
    raise EvaluationError("the model's configuration names no context length; give max_length=")
