"""The cache of several rows whose new tokens lie side by side in one pass, with no padding between them.

Dimensions: P rows, T new tokens and S visible slots of all of them together, G key/value heads, K head dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt_core.models.config import GPTConfig

from .cache import KVCache


class Packed:
    """Some tokens for each of P rows, in one row: `model.hidden(ids_1T, cache=Packed(config, rows, parts))`.

    Every row keeps its own positions and windows; a mask keeps the rows apart. It has T · S entries, so this is for
    short rows: the linear maps gain by their number, attention pays by its square.

    Args:
        rows: caches of one row each; they are extended.
        parts: how many tokens each row gets, at least 1.
    """

    def __init__(self, config: GPTConfig, rows: Sequence[KVCache], parts: Sequence[int]):
        assert len(rows) == len(parts) and min(parts) > 0, "a row without new tokens has no place in a pass"
        self._config, self._rows, self._parts = config, list(rows), list(parts)
        self._masks: dict[int | None, Tensor] = {}

    def positions(self, T: int) -> Tensor:
        assert sum(self._parts) == T, f"{T} tokens for parts of {self._parts}"
        return torch.cat([row.positions(part) for row, part in zip(self._rows, self._parts, strict=True)])

    def update(self, layer: int, k_1GTK: Tensor, v_1GTK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = [], []
        new = zip(self._rows, k_1GTK.split(self._parts, 2), v_1GTK.split(self._parts, 2), strict=True)
        for row, k_1GPK, v_1GPK in new:
            all_keys, all_values, _ = row.update(layer, k_1GPK, v_1GPK)  # no mask: a row of its own has no padding
            keys.append(all_keys)
            values.append(all_values)
        window = self._config.layer_window(layer)
        if window not in self._masks:
            self._masks[window] = self._mask([x.shape[2] for x in keys], window, k_1GTK.device)
        return torch.cat(keys, 2), torch.cat(values, 2), self._masks[window]

    def before(self, ids_1T: Tensor) -> Tensor:
        new = zip(self._rows, ids_1T.split(self._parts, 1), strict=True)
        return torch.cat([row.before(ids_1P) for row, ids_1P in new], 1)

    def advance(self, T: int) -> None:
        for row, part in zip(self._rows, self._parts, strict=True):
            row.advance(part)

    def _mask(self, visible: Sequence[int], window: int | None, device: torch.device) -> Tensor:
        """Bool (1, 1, T, S): in its own row, a token sees the slots up to its own, and no more than `window` of them.

        The new tokens of a row are its last slots. The order in a full ring does not matter: there one token sees all.
        """
        number_P, parts_P, visible_P = torch.tensor([range(len(visible)), self._parts, visible])
        first_P = (
            visible_P.cumsum(0) - parts_P - (parts_P.cumsum(0) - parts_P)
        )  # slot of a row's first token, less its t
        own_T = torch.arange(sum(self._parts)) + first_P.repeat_interleave(parts_P)
        slot_S, own_T1 = torch.arange(sum(visible)), own_T.unsqueeze(1)
        row_T1 = number_P.repeat_interleave(parts_P).unsqueeze(1)
        seen_TS = (row_T1 == number_P.repeat_interleave(visible_P)) & (slot_S <= own_T1)
        if window is not None:
            seen_TS &= slot_S > own_T1 - window
        return seen_TS[None, None].to(device)
