"""Show what the model writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from gpt_core.distributed import Distributed
from gpt_core.generate import Generator
from gpt_core.generate.generator import Tokenizer
from gpt_core.monitor import Sinks
from gpt_core.training.compilation import eager
from gpt_core.training.config import SampleConfig
from gpt_core.training.state import Hook, TrainState


class Sample(Hook):
    """Generates text on rank 0, in the precision of training: at the end of a completed run, and every `sample_every`
    steps. gather: entered by every rank, it makes the weights whole.

    Raises ValueError before the first step where the tokenizer cannot write the prompt.
    """

    def __init__(
        self,
        config: SampleConfig,
        sinks: Sinks,
        distributed: Distributed,
        tokenizer: Tokenizer,
        seed: int,
        gather: Callable[[], AbstractContextManager] = nullcontext,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.config, self.sinks, self.distributed = config, sinks, distributed
        self.tokenizer, self.seed, self.gather, self.autocast = tokenizer, seed, gather, autocast

    def on_start(self, state: TrainState) -> None:
        if not self.config.max_new_tokens:
            return
        try:
            empty = not self.tokenizer.encode(self.config.prompt)
        except ValueError as error:
            raise ValueError(f"generate.prompt: {error}; choose another, or no sample (max_new_tokens=0)") from error
        if empty:
            raise ValueError("generate.prompt is empty: give at least one token, or no sample (max_new_tokens=0)")

    def on_step(self, state: TrainState) -> None:
        if self.config.sample_every and state.step % self.config.sample_every == 0:
            self._show(state)

    def on_end(self, state: TrainState) -> None:
        at_this_step = self.config.sample_every and state.step % self.config.sample_every == 0
        if state.status == "completed" and not at_this_step:
            self._show(state)

    def _show(self, state: TrainState) -> None:
        if not self.config.max_new_tokens:
            return
        with self.gather():
            texts = self._generate(state) if self.distributed.is_main else []
        for text in texts:
            self.sinks.event("sample", {"step": state.step, "text": text})

    def _generate(self, state: TrainState) -> list[str]:
        was_training = state.model.training
        with eager(state.model), self.autocast():
            texts = Generator(state.model, self.tokenizer, notify=self.sinks.info).generate(
                self.config.prompt,
                max_new_tokens=self.config.max_new_tokens,
                num_samples=self.config.num_samples,
                temperature=self.config.temperature,
                top_k=self.config.top_k,
                top_p=self.config.top_p,
                repetition_penalty=self.config.repetition_penalty,
                seed=self.seed,
            )
        state.model.train(was_training)
        return texts
