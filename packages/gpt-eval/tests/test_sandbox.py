"""Programs that are right, wrong, or would pass without being right."""

import io
import json

import pytest
from sandboxed import QUICK, needs, verdict

from gpt_eval.errors import EvaluationError
from gpt_eval.sandbox import Limits, execute, run_native, run_python
from gpt_eval.sandbox.execute import toolchain
from gpt_eval.sandbox.inside import warden


def test_a_right_program_passes_and_a_wrong_one_does_not():
    assert verdict("def f(x):\n    return 3\n").passed
    wrong = verdict("def f(x):\n    return 4\n")
    assert not wrong.passed and wrong.error == "AssertionError" and not wrong.timeout and not wrong.memory


@pytest.mark.parametrize(
    "program, error",
    [
        ("def f(x:\n", "SyntaxError"),
        ("def g(x):\n    return 3\n", "KeyError"),
        ("def f(x):\n    raise ValueError('no')\n", "ValueError: no"),
        ("def f(x):\n    return 3\nraise RuntimeError('at the end')\n", "RuntimeError: at the end"),
        ("def f(x):\n    return input()\n", "EOFError"),
    ],
)
def test_failures_are_named(program, error):
    got = verdict(program)
    assert not got.passed and error in got.error


CHEATS = {
    "exit(0) at once": "import sys\nsys.exit(0)\n",
    "exit(0) when asked": "def f(x):\n    raise SystemExit(0)\n",
    "os._exit": "import os\ndef f(x):\n    os._exit(0)\n",
    "os._exit at once": "import os\nos._exit(0)\n",
    "equal to everything": "class E:\n    __eq__ = lambda s, o: True\ndef f(x):\n    return E()\n",
    "equal to everything, derived": "class E(int):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return E(9)\n",
    "equal to everything, a list": "class E(list):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return E()\n",
    "patched AssertionError": "import builtins\nbuiltins.AssertionError = None\ndef f(x):\n    return 4\n",
    "patched print": "import builtins\nbuiltins.print = lambda *a: None\ndef f(x):\n    return 4\n",
    "own check": "def check(c):\n    pass\ndef f(x):\n    return 4\n",
    "settrace": (
        "import sys\ndef trace(frame, event, arg):\n    frame.f_locals.clear()\n    return trace\n"
        "sys.settrace(trace)\ndef f(x):\n    return 4\n"
    ),
    "the caller's frame": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in list(frame.f_locals.values()):\n            if isinstance(v, str) and len(v) == 32:\n"
        "                print(v)\n        frame = frame.f_back\n    sys.exit(0)\n"
    ),
    "the checker's module": "import sys\nsys.path.insert(0, '/box')\n"
    "from inside import checker\nchecker.main()\ndef f(x):\n    return 4\n",
    "every open descriptor": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n        try:\n"
        '            os.write(fd, b\'{"word": ""}\\n{"value": {"int": "0x3"}}\\n\')\n        except OSError:\n'
        "            pass\n    os._exit(0)\n"
    ),
    "the checker's memory": (
        "import os\ndef f(x):\n    for pid in [p for p in os.listdir('/proc') if p.isdigit()]:\n        try:\n"
        "            open(f'/proc/{pid}/mem', 'r+b').seek(1)\n"
        "            print('opened', pid) if int(pid) != os.getpid() else 0\n"
        "        except OSError:\n            pass\n    return 4\n"
    ),
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x):\n    return 4\n",
    "a forged reply": (
        "import sys, os, json, gc\nfor o in gc.get_objects():\n    pass\n"
        "os.write(int(open('/proc/self/cmdline').read().split('\\0')[-2]), b'{\"value\": null}\\n' * 3)\nos._exit(0)\n"
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_program_that_is_not_right_cannot_pass(name):
    got = verdict(CHEATS[name])
    assert not got.passed and got.error
    assert "opened" not in got.output


def test_the_program_sees_neither_the_test_nor_the_word():
    program = (
        "import os, sys, gc\nseen = [open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()]\n"
        "seen += [o for o in gc.get_objects() if isinstance(o, dict)]\n"
        "print('EXPECTED-VALUE' + '-73' in repr(seen), repr(os.environ))\ndef f(x):\n    return 0\n"
    )
    got = verdict(program, "def check(candidate):\n    assert candidate(1) == 'EXPECTED-VALUE-73'\n")
    assert not got.passed
    assert got.output.startswith("False") and "SECRET" not in got.output


def test_values_cross_exactly():
    cases = [
        0.1 + 0.2,
        -0.0,
        2**63,
        True,
        None,
        "\ud800é",
        b"\0x",
        (1, [2, {3: {4}}]),
        frozenset({1}),
        1 + 2j,
        range(3),
    ]
    test = (
        f"def check(candidate):\n    for case in {cases!r}:\n        got = candidate(case)\n"
        "        assert type(got) is type(case) and repr(got) == repr(case), got\n"
        "    assert candidate(10**5000) == 10**5000\n    assert str(candidate(float('nan'))) == 'nan'\n"
    )
    got = run_python("def f(x):\n    return x\n", test, entry_point="f", limits=QUICK)
    assert got.passed, got.error


def test_what_a_test_may_do_with_a_program():
    program = """
import re
class Shape:
    def __init__(self, side): self.side = side
    def area(self): return self.side ** 2
def f(items):
    items.sort()
def numbers():
    yield from (1, 2)
def match(text):
    return re.match('a', text)
def fail():
    raise KeyError('k')
"""
    test = """
items = [3, 1, 2]
assert f(items) is None and items == [1, 2, 3]
assert Shape(3).area() == 9 and Shape(side=2).side == 2
assert list(numbers()) == [1, 2]
assert match('abc') and not match('b')
try:
    fail()
except KeyError:
    pass
else:
    raise AssertionError
"""
    got = run_python(program, test, limits=QUICK)
    assert got.passed, got.error


def test_helpers_of_the_prompt_are_the_benchmark_s_own():
    prompt = (
        "def poly(x):\n    return x * x\n\ndef f(x):\n    '''Finds x with poly(x) = 4.'''\n    if x:\n        return ("
    )
    test = "def check(candidate):\n    assert poly(candidate(1)) == 4\n"
    assert verdict("def poly(x):\n    return x * x\ndef f(x):\n    return 2\n", test, prelude=prompt).passed
    assert not verdict("def poly(x):\n    return 4\ndef f(x):\n    return 7\n", test, prelude=prompt).passed
    assert verdict("def poly(x):\n    return 4\ndef f(x):\n    return 7\n", test).passed  # a chat's own


@pytest.mark.slow
def test_cpp():
    if toolchain("c++") is None:
        pytest.skip("no g++ on this machine")
    program = "#include <cassert>\n#include <cstdlib>\nint f(int x) { BODY }\nint main() { assert(f(2) == 3); }\n"
    assert run_native("c++", program.replace("BODY", "return x + 1;")).passed
    wrong = run_native("c++", program.replace("BODY", "return x;"))
    assert not wrong.passed and "Assertion" in wrong.error
    assert "before its test" in run_native("c++", program.replace("BODY", "exit(0);")).error
    assert "compile" in run_native("c++", program.replace("BODY", "return y;")).error


def test_javascript():
    if toolchain("javascript") is None:
        pytest.skip("no node on this machine")
    program = "const f = x => { BODY };\nconsole.assert(f(2) === 3, 'f(2)');\n"
    assert run_native("javascript", program.replace("BODY", "return x + 1")).passed
    assert "f(2)" in run_native("javascript", program.replace("BODY", "return x")).error
    assert "before its test" in run_native("javascript", program.replace("BODY", "process.exit(0)")).error


@pytest.mark.parametrize(
    "replaced", ["console.assert = () => {};", "globalThis.console = { assert() {} };", "delete console.assert;"]
)
def test_javascript_cannot_replace_what_its_test_asserts_with(replaced):
    if toolchain("javascript") is None:
        pytest.skip("no node on this machine")
    wrong = run_native("javascript", f"{replaced}\nconst f = x => x;\nconsole.assert(f(2) === 3, 'f(2)');\n")
    assert not wrong.passed and "f(2)" in wrong.error


def test_an_error_of_the_sandbox_while_a_program_runs_does_not_weaken_it():
    needs("own root")
    work = {"files": {"big": "x" * 2**20}, "steps": [{"name": "run", "argv": ["/bin/true"], "bounds": {}}]}
    got = execute._execute(work, "", Limits(file_bytes=2**16), True)  # its folder holds 256 KiB
    assert not got.passed and "No space left" in got.error and got.isolation == ()


def test_only_a_refused_isolation_falls_back_to_resource_limits(monkeypatch):
    asked = []

    def reports(work, limits, isolate):
        asked.append(isolate)
        return {"failed": "OSError: mount", "unisolated": refused and isolate}

    monkeypatch.setattr(execute, "_warden", reports)
    for refused, expected in ((False, [True]), (True, [True, False])):  # noqa: B007 read by `reports`
        asked.clear()
        with pytest.raises(EvaluationError, match="OSError: mount"):
            run_python("", "")
        assert asked == expected


@pytest.mark.parametrize("broken", ["separate", "enter_root"])
def test_the_warden_says_when_the_kernel_refuses_isolation(broken, monkeypatch, capsys):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(warden.jail, "separate", lambda: ["process namespace"])
    monkeypatch.setattr(warden.jail, broken, refuse)
    monkeypatch.setattr(warden.jail, "die_with_parent", lambda: None)
    monkeypatch.setattr(warden.os, "fork", lambda: 0)
    order = {"isolate": True, "base": "", "show": [], "bounds": {"file": 1}}
    monkeypatch.setattr(warden.sys, "stdin", io.StringIO(json.dumps(order)))
    warden.main()
    report = json.loads(capsys.readouterr().out)
    assert report["unisolated"] and "not permitted" in report["failed"]


def test_a_compiler_that_takes_too_long_is_named():
    report = {"timeout": True, "memory": False, "status": None, "output": "", "step": "compile"}
    assert execute._why(report, QUICK) == "still compiling after 60 s"
    assert execute._why(report | {"step": "run"}, QUICK) == "still running after 5 s"


def test_limits_are_positive():
    with pytest.raises(ValueError, match=r"Limits.seconds must be positive, got 0"):
        Limits(seconds=0)


def test_a_sandbox_that_cannot_run_anything_is_no_verdict(monkeypatch):
    broken = execute.Execution(passed=False, error="exit code 127", output="no such file")
    monkeypatch.setattr(execute, "run_python", lambda *args: broken)
    with pytest.raises(EvaluationError, match=r"cannot run an empty program here .exit code 127 no such file"):
        execute.isolation.__wrapped__()
    monkeypatch.setattr(execute, "_warden", lambda *args: {"failed": "RuntimeError: out of luck"})
    with pytest.raises(EvaluationError, match="no program was run: RuntimeError: out of luck"):
        run_python("", "")
    monkeypatch.setattr(execute, "_warden", lambda *args: {"lost": "killed"})
    assert not run_python("", "").passed
