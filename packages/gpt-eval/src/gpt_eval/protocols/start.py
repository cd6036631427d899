"""What a text begins with."""

from gpt_eval.errors import EvaluationError
from gpt_eval.model import LanguageModel


def start_of_text(model: LanguageModel) -> int:
    """The token that an empty context is replaced by: start of text, else end of text.

    Raises EvaluationError for a tokenizer that has neither.
    """
    if model.bos_id is not None:
        return model.bos_id
    if model.eot_id is not None:
        return model.eot_id
    raise EvaluationError(
        f"a prompt of {model.name} must begin with a start or end of text, and its tokenizer has neither; "
        'give the model a `bos_id`, or take protocol="foundry" and a task without empty contexts'
    )
