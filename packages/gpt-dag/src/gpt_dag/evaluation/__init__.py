"""Exact-match evaluation: items, answers, intervals, and what a baseline would score."""

from gpt_dag.evaluation.baselines import baselines as baselines
from gpt_dag.evaluation.exact import Scores as Scores
from gpt_dag.evaluation.exact import score as score
from gpt_dag.evaluation.intervals import Rate as Rate
from gpt_dag.evaluation.items import Item as Item
from gpt_dag.evaluation.items import read_items as read_items
from gpt_dag.evaluation.items import write_items as write_items
from gpt_dag.evaluation.tasks import TASKS as TASKS
from gpt_dag.evaluation.tasks import draw_items as draw_items
