"""A differentiable DAG that does exact arithmetic inside a GPT: numbers, expressions, their stream, the models."""

from gpt_dag.digits import ValueMagnitudeError
from gpt_dag.english import parse_english
from gpt_dag.executor import Execution, execute, execute_stack
from gpt_dag.expression import DivisionByZero, Expression, Operator, Step, evaluate, node_values, render
from gpt_dag.logger import DAGLogger
from gpt_dag.losses import answer_loss
from gpt_dag.models import DagGPT, gpt_dag, load_predictor
from gpt_dag.number import Number
from gpt_dag.parse import ParseError, parse
from gpt_dag.plans import Plans
from gpt_dag.stream import Law, Sample, expressions, fingerprint, sample, targets
from gpt_dag.stream.answers import answers
from gpt_dag.tokens import WordTokenizer
from gpt_dag.wording import write

__all__ = [
    "DAGLogger",
    "DagGPT",
    "DivisionByZero",
    "Execution",
    "Expression",
    "Law",
    "Number",
    "Operator",
    "ParseError",
    "Plans",
    "Sample",
    "Step",
    "ValueMagnitudeError",
    "WordTokenizer",
    "answer_loss",
    "answers",
    "evaluate",
    "execute",
    "execute_stack",
    "expressions",
    "fingerprint",
    "gpt_dag",
    "load_predictor",
    "node_values",
    "parse",
    "parse_english",
    "render",
    "sample",
    "targets",
    "write",
]
