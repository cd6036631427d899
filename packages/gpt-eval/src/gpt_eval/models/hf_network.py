"""A causal language model of transformers as a `Network`, with what cannot be known of a class proved by probes.

Dimensions: B rows, T tokens fed, S slots held, D width, V vocabulary.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .gpt_network import rows_of
from .network import Sight, branches_exactly, check_causal


class HFNetwork:
    """Wraps an `AutoModelForCausalLM` in eval mode. Raises EvaluationError for one that sees what comes after."""

    def __init__(self, model: Any, *, context: int):
        self.model = model
        self.device = model.get_input_embeddings().weight.device
        config = model.config.get_text_config(decoder=True)
        self.vocab_size = config.vocab_size
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._windows = _layer_windows(config)
        self.holds_logits, self.can_branch = False, False
        self.holds_logits = not self._head_is_known(context)
        check_causal(self, context)
        if not self.holds_logits and self._windows is not None:
            self.can_branch = branches_exactly(self, context)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        if self.holds_logits:
            return self.model(input_ids=ids_BT, use_cache=False).logits
        return self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state

    def head(self, x_ND: Tensor) -> Tensor:
        if self.holds_logits:
            return x_ND
        logits_NV = self.model.get_output_embeddings()(x_ND)
        return torch.tanh(logits_NV / self._softcap) * self._softcap if self._softcap else logits_NV

    def new_cache(self) -> Any:
        """Layers that keep everything, sliding windows included: masks say who sees what."""
        from transformers import DynamicCache

        return DynamicCache()

    def append(self, cache: Any, ids_BT: Tensor, sight: Sight | None) -> Tensor:
        positions_BT = None if sight is None else sight.positions_BT
        if sight is None:
            held = cache.get_seq_length()
            positions_BT = torch.arange(held, held + ids_BT.shape[1], device=self.device).expand(ids_BT.shape)
        return self.model.base_model(
            input_ids=ids_BT,
            past_key_values=cache,
            use_cache=True,
            position_ids=positions_BT,
            attention_mask=None if sight is None else self._mask(sight),
        ).last_hidden_state

    def select(self, cache: Any, rows: Sequence[int]) -> Any:
        chosen = self.new_cache()
        for layer in cache.layers:
            chosen.layers.append(copy.copy(layer))
            chosen.layers[-1].keys = rows_of(layer.keys, rows)
            chosen.layers[-1].values = rows_of(layer.values, rows)
        return chosen

    def _mask(self, sight: Sight) -> Tensor | dict[str, Tensor]:
        """Additive (B, 1, T, S), which both eager and SDPA attention take; by layer type where types differ."""
        assert self._windows is not None, "models whose windows are unknown do not branch"
        masks = {kind: self._additive(sight.windowed(window)) for kind, window in self._windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _additive(self, seen_BTS: Tensor) -> Tensor:
        dtype = self.model.dtype
        mask_BTS = torch.zeros(seen_BTS.shape, dtype=dtype, device=self.device)
        return mask_BTS.masked_fill_(~seen_BTS, torch.finfo(dtype).min)[:, None]

    @torch.inference_mode()
    def _head_is_known(self, context: int) -> bool:
        """Whether base model, output embeddings and the soft cap are all there is between ids and logits."""
        if self.model.get_output_embeddings() is None or self.model.base_model is self.model:
            return False
        if any(value for name, value in self.model.config.to_dict().items() if _is_other_softcap(name)):
            return False  # small logits hardly feel a cap: the probe would not
        spread = torch.linspace(0, self.vocab_size - 1, min(6, context), device=self.device)
        ids_BT = spread.long()[None]
        expected = self.model(input_ids=ids_BT, use_cache=False).logits.float()
        try:
            got = self.head(self.hidden(ids_BT)).float()
        except (AttributeError, TypeError, RuntimeError):  # no last_hidden_state, another call, other widths
            return False
        tolerance = 1e-5 if self.model.dtype.itemsize >= 4 else 1e-2
        return got.shape == expected.shape and bool(
            (got - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1e-6)
        )


def _is_other_softcap(name: str) -> bool:
    return "soft" in name and "cap" in name and "att" not in name and name != "final_logit_softcapping"


def _layer_windows(config: Any) -> dict[str, int | None] | None:
    """Sliding window of each type of layer, None for full attention.

    None at all for types that are not attention, and for windows of another kind (GPT-Neo's `window_size` counts the
    slots of its cache, which a short probe would not notice).
    """
    types = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if any(value for name, value in config.to_dict().items() if _is_other_window(name)):
        return None
    if not types:
        uses = window is not None and getattr(config, "use_sliding_window", True)
        return {"every": window if uses else None}
    if not types <= {"full_attention", "sliding_attention"}:
        return None
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(types)}


def _is_other_window(name: str) -> bool:
    return "window" in name and "sliding_window" not in name and name != "max_window_layers"


def steady_length(config: Any) -> int | None:
    """The longest text up to which the model's rotary frequencies are the same for every length; None for any.

    Beyond it LongRoPE and dynamic scaling give a token another vector as soon as a longer text shares its batch.
    """
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for entry in (scaling, *scaling.values()):  # of the whole model, or by type of layer
        kind = entry.get("rope_type", entry.get("type")) if isinstance(entry, dict) else None
        if kind in ("longrope", "dynamic", "su"):
            own = getattr(config, "original_max_position_embeddings", None)
            own = entry.get("original_max_position_embeddings") or own
            return own if kind != "dynamic" and own else config.max_position_embeddings
    return None
