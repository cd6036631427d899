"""From the name of a protocol to its conventions."""

from types import ModuleType

from gpt_eval.errors import EvaluationError
from gpt_eval.protocols import core, foundry, harness
from gpt_eval.task import ProtocolName

_MODULES: dict[ProtocolName, ModuleType] = {"foundry": foundry, "core": core, "harness": harness}


def conventions(protocol: ProtocolName) -> ModuleType:
    """The module of a protocol, with `multiple_choice`, `language_modeling`, `schema` and `generation`.

    Each takes (task, row, shots, model), the row to ask about and the rows to show before it; the first three return
    an `Asked`, the last the ids of a prompt. Raises EvaluationError for another name.
    """
    if protocol not in _MODULES:
        raise EvaluationError(f"protocol is {protocol!r}, expected {', '.join(_MODULES)}")
    return _MODULES[protocol]
