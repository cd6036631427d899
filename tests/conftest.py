"""A workbench for apps/pretrain, and processes that have imported torch already."""

import sys

import pytest

from workbench import Workbench
from workspace import ROOT

sys.path.append(str(ROOT / "packages/gpt-core/tests"))  # for forks.py


def pytest_itemcollected(item):
    """The server of processes imports torch on another core while the rest is collected."""
    if "fork" in getattr(item, "fixturenames", ()):
        import forks  # and torch

        forks.start_server()


@pytest.fixture(scope="session")
def fork():
    """fork(folder, function, *arguments): a process that has imported torch already."""
    import forks

    forks.wait_for_server()
    return forks.fork


@pytest.fixture(scope="session")
def fork_ranks(fork):
    """fork_ranks(folder, size, function, *arguments): several, as torchrun starts them."""
    import forks

    return forks.fork_ranks


@pytest.fixture
def workbench(tmp_path):
    return Workbench(tmp_path)


@pytest.fixture(scope="module")
def shared_workbench(tmp_path_factory):
    """One folder for all tests of a file: each takes its own run names."""
    return Workbench(tmp_path_factory.mktemp("workbench"))
