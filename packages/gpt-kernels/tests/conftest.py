"""Kernels run on the GPU where there is one, else in Triton's interpreter."""

import importlib.util

import pytest
import torch

from gpt_kernels.testing import use_interpreter

if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    use_interpreter()


def pytest_configure(config):
    for marker in ("gpu: needs a CUDA device", "slow: takes more than a few seconds"):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
