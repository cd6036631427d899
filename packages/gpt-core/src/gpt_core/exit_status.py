"""How an app ends: what its user can mend is one line, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


def exit_with(main: Callable[[list[str]], int | None], argv: list[str]) -> NoReturn:
    """Run `main(argv)` and end the process with what it returns; None is 0.

    ValueError, OSError and ImportError (a typing error, a full disk, an extra that is not installed) are told on stderr
    as `error: ...`; the status is 1, or the error's own `exit_status`. Ctrl-C is 130; anything else is a bug and shows
    its traceback.
    """
    try:
        sys.exit(main(argv))
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, ImportError, OSError) as error:
        status = getattr(error, "exit_status", None)
        if status is None:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
