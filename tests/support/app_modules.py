"""The modules of an app in this process: apps may have modules of the same names."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

from workspace import ROOT


@contextlib.contextmanager
def app_modules(app: str) -> Iterator[Callable[[str], ModuleType]]:
    """import_(name) for a module of apps/APP, until the context ends."""
    folder = ROOT / "apps" / app
    names = [path.stem for path in folder.glob("*.py") if path.stem != "__main__"]
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
