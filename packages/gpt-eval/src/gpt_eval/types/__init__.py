"""Kinds of benchmarks, one module each, found by name: `Task.type` is the module's name, or a dotted path elsewhere."""
