"""How the tests of the workspace run: on one thread each, since several processes run them, and with bytecode.

Where the environment forbids bytecode beside the sources, as containers do, it goes into the virtual environment: every
process that a test starts would compile torch anew, for seconds."""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
if sys.dont_write_bytecode and sys.pycache_prefix is None:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(Path(sys.prefix) / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

gc.disable()  # until the tests are collected: what they import stays, and is looked through in vain, for seconds


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()


def pytest_sessionfinish(session):
    gc.unfreeze()  # hypothesis may be imported after this, and asks the collector who refers to what
