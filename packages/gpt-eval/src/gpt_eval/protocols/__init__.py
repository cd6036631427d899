"""How a row becomes token ids, by whose conventions: one module per protocol, each with the same four functions."""

from gpt_eval.protocols.conventions import conventions as conventions
