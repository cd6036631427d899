"""Benchmarks of the operations: `python -m gpt_kernels.bench --help`.

Each operation is timed as its reference, its reference compiled, as `gpt_kernels` runs it, and as peers do where they
are installed; beside the time stands the share of what the device can do at most. What was not measured says why.

    case.py      what is measured: an operation, its arguments, its sides, and how much it reads and computes
    pointwise.py, matrix.py, losses.py   the cases
    measure.py   timing, and the ceiling of the device
    goals.py     what is to be reached, and whether it was
    report.py    table, CSV, plot
"""
