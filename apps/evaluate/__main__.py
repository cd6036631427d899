"""Score a model on benchmarks.

uv run apps/evaluate out/my-run --suite core --bundle DIR             a run, checkpoint or ckpt.pt
uv run apps/evaluate hf:DIR --suite arc_easy,copa --bundle DIR        a model of transformers
uv run apps/evaluate http://HOST/v1 --model NAME --bundle DIR         an endpoint with OpenAI's API
uv run apps/evaluate compare RESULTS RESULTS ...                      differences on the same items, with intervals
uv run apps/evaluate fetch TASK ... --bundle DIR                      benchmarks from their hubs into a bundle
"""

import os
import sys

from gpt_eval.errors import CodeExecutionRefused, JudgeRequired


def main(argv: list[str]) -> None:
    match argv:
        case ["compare", *rest]:
            import comparing

            comparing.main(rest)
        case ["fetch", *rest]:
            import fetching

            fetching.main(rest)
        case _:
            import evaluating  # and torch

            evaluating.main(argv, __doc__ or "")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (JudgeRequired, CodeExecutionRefused) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"error: {error}")
