"""What can be wrong with a request, by name. All are ValueErrors: the user's to mend, got, expected, what to do."""


class EvaluationError(ValueError):
    """An evaluation that cannot be done as asked."""


class BundleError(EvaluationError):
    """Benchmark data that cannot be used: a missing or stale file, or a row that is wrong (names file and line)."""


class UnsupportedByBackend(EvaluationError):
    """A task needs something that this model's backend cannot do; raised before anything runs, never approximated."""


class JudgeRequired(EvaluationError):
    """A benchmark is scored by a judge model and none was given; raised before anything is generated."""


class CodeExecutionRefused(EvaluationError):
    """A benchmark runs generated programs and the caller has not allowed it; raised before anything is generated."""
