"""Toys for the tests of training, and processes that start at once."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # of the modules below: here, and in the processes that tests start

import forks
import toys as toy


def pytest_itemcollected(item):
    """The server of processes imports torch on another core while the rest is collected."""
    if {"fork", "fork_ranks"} & set(getattr(item, "fixturenames", ())):
        forks.start_server()


@pytest.fixture(scope="session")
def fork():
    forks.wait_for_server()
    return forks.fork


@pytest.fixture(scope="session")
def fork_ranks():
    forks.wait_for_server()
    return forks.fork_ranks


@pytest.fixture
def toys():
    return SimpleNamespace(
        VOCAB=toy.VOCAB,
        CONTEXT=toy.CONTEXT,
        BATCH=toy.BATCH,
        Batch=toy.ToyBatch,
        Loader=toy.ToyLoader,
        Spelled=toy.Spelled,
        gpt=toy.tiny_gpt,
        adamw=toy.adamw,
        state=toy.make_state,
        train=toy.run_loop,
    )
