"""Runs the Python examples of a README, each by itself: python -I .ci/run_readme.py packages/gpt-x/README.md"""

import re
import sys
from pathlib import Path

examples = re.findall(r"```python\n(.*?)```", Path(sys.argv[1]).read_text(encoding="utf-8"), re.DOTALL)
assert examples, f"{sys.argv[1]} has no example"
for number, code in enumerate(examples, 1):
    print(f"--- {sys.argv[1]}, example {number} of {len(examples)}", flush=True)
    exec(compile(code, sys.argv[1], "exec"), {"__name__": "readme"})
