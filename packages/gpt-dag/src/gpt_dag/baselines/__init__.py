"""Published ways to make a network calculate, as their papers define them: what comparisons are made with."""

from gpt_dag.baselines.abacus import AbacusGPT as AbacusGPT
from gpt_dag.baselines.abacus import digit_places as digit_places
from gpt_dag.baselines.arithmetic_units import NALU as NALU
from gpt_dag.baselines.arithmetic_units import NAU as NAU
from gpt_dag.baselines.arithmetic_units import NMU as NMU
from gpt_dag.baselines.number_tokens import FoNE as FoNE
from gpt_dag.baselines.number_tokens import NumberRows as NumberRows
from gpt_dag.baselines.number_tokens import XVal as XVal
