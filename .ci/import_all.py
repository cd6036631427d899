"""Imports every module of an installed package: python -I .ci/import_all.py gpt_x [gpt_x.models ...]

Modules below the packages named after it may lack a library, if one of the package's extras brings it.
"""

import importlib
import pkgutil
import re
import sys
from importlib.metadata import requires, version

package = importlib.import_module(sys.argv[1])
assert "site-packages" in str(package.__file__), package.__file__
found = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
modules = [name for name in found if not name.endswith(".__main__")]
distribution = package.__name__.replace("_", "-")
extras = {re.split(r"\W", line, maxsplit=1)[0] for line in requires(distribution) or () if "extra ==" in line}
behind = 0
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in extras or not name.startswith(tuple(f"{folder}." for folder in sys.argv[2:])):
            raise
        behind += 1
waiting = f", {behind} wait for an extra" if behind else ""
print(f"{package.__name__} {version(distribution)}: {len(modules) - behind} modules import{waiting}")
