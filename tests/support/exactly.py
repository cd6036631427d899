"""Apps in the arithmetic that one process and several share up to rounding: what ranks of a test run."""

import sys
from functools import partial

import torch

from gpt_optim import factories, newton_schulz


def exact_products():
    """Some processors multiply in bfloat16 by default; and the direct form rounds least."""
    factories.ORTHOGONALIZERS["newton_schulz"] = partial(newton_schulz, dtype=torch.float32, form="direct")


def pretrain(workbench, *arguments):
    app(workbench, "pretrain", *workbench.arguments(*arguments))


def app(workbench, *arguments):
    """Any app with just these arguments."""
    exact_products()
    sys.exit(workbench.app(*arguments))
