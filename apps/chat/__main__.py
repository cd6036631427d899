"""Talk to a trained model, in the terminal or in a browser.

uv run apps/chat                                  the newest run below out/
uv run apps/chat out/my-run --temperature 0.7
uv run apps/chat --prompt "What is 12 / 60?"      one answer, then the end
uv run apps/chat serve                            a page at http://127.0.0.1:8003, and OpenAI's interface
"""

import sys

from options import parse

from gpt_core.exit_status import exit_with


def main(argv: list[str]) -> int:
    options = parse(argv, __doc__)
    if options.serve:
        from serving import serve

        serve(options)
        return 0
    from terminal import chat

    return chat(options)


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
