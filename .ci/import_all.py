"""Imports every module of an installed package: python -I .ci/import_all.py gpt_x"""

import importlib
import pkgutil
import sys
from importlib.metadata import version

package = importlib.import_module(sys.argv[1])
assert "site-packages" in str(package.__file__), package.__file__
found = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
modules = [name for name in found if not name.endswith(".__main__")]
for name in modules:
    importlib.import_module(name)
print(f"{package.__name__} {version(package.__name__.replace('_', '-'))}: {len(modules)} modules import")
