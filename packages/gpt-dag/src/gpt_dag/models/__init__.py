"""GPT + DAG: the model of phase 2 and its parts."""

from .dag_gpt import DagGPT as DagGPT
from .factory import from_gpt as from_gpt
from .factory import gpt_dag as gpt_dag
from .load_predictor import load_predictor as load_predictor
