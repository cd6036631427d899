"""Optimizers and learning-rate schedules for GPT training."""

from gpt_optim import schedules as schedules
from gpt_optim.adamw import adamw as adamw
from gpt_optim.adamw import decay_groups as decay_groups
from gpt_optim.groups import Rule as Rule
from gpt_optim.groups import default_rules as default_rules
from gpt_optim.groups import param_groups as param_groups
from gpt_optim.muon import Muon as Muon
from gpt_optim.muon import muon as muon
from gpt_optim.orthogonalize import newton_schulz as newton_schulz
from gpt_optim.orthogonalize import polar_express as polar_express
