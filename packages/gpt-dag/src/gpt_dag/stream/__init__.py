"""Endless expressions: what is drawn, how it is written, and the loader that hands it out."""

from gpt_dag.stream.checks import fingerprint as fingerprint
from gpt_dag.stream.law import STYLES as STYLES
from gpt_dag.stream.law import Law as Law
from gpt_dag.stream.loader import ExpressionCorpus as ExpressionCorpus
from gpt_dag.stream.loader import expressions as expressions
from gpt_dag.stream.sample import Sample as Sample
from gpt_dag.stream.sample import sample as sample
from gpt_dag.stream.targets import targets as targets
