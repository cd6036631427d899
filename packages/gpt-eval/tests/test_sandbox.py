"""Programs that try to get out, to stay, to take everything, or to pass without being right."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt_eval.errors import EvaluationError
from gpt_eval.sandbox import Limits, isolation, run_native, run_python
from gpt_eval.sandbox.execute import toolchain

QUICK = Limits(seconds=1.0)
LONGER = Limits(seconds=3.0)
TEST = "def check(candidate):\n    assert candidate(2) == 3\n    assert candidate([1]) == 3\n"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")


def needs(space: str) -> None:
    if space not in isolation():
        pytest.skip(f"this kernel gives this user no {space}: in force is {', '.join(isolation())}")


def verdict(program: str, test: str = TEST, limits: Limits = QUICK, **options):
    return run_python(program, test, entry_point="f", limits=limits, **options)


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


def test_files_outside_its_folder_cannot_be_written_or_read(tmp_path):
    needs("own root")
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    home = Path(__file__).resolve()
    new = str(tmp_path / "new.txt")
    program = f"""
import os
for path in [{str(secret)!r}, {str(home)!r}, '/etc/passwd', '/etc/shadow', '/proc/1/root{secret}', '/proc/1/environ']:
    try:
        print('READ', open(path).read()[:20])
    except OSError:
        pass
os.symlink({str(secret)!r}, 'link')
for path in ['link', {new!r}, '/usr/new.txt', '/new.txt', '/proc/sys/kernel/hostname', '../n']:
    try:
        open(path, 'w').write('x')
        print('WROTE', path)
    except OSError:
        pass
open('mine.txt', 'w').write('allowed')
def f(x):
    return 3
"""
    got = verdict(program)
    assert got.passed, got
    assert got.output == ""
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"] and secret.read_text() == "the secret"


def test_it_cannot_get_out_of_its_root_or_gain_rights():
    needs("own root")
    program = """
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, call in {
    'chroot': lambda: os.chroot('/box'),
    'setuid': lambda: os.setuid(0) if os.getuid() else 1 / 0,
    'unshare user': lambda: libc.unshare(0x10000000) and 1 / 0,
    'unshare mount': lambda: libc.unshare(0x00020000) and 1 / 0,
    'mount': lambda: libc.mount(b'none', b'/box', b'tmpfs', 0, b'') and 1 / 0,
    'mknod': lambda: os.mknod('disk', 0o60660, os.makedev(254, 0)),
    'ptrace 1': lambda: libc.ptrace(16, 1, 0, 0) and 1 / 0,
}.items():
    try:
        call()
        print('DONE', name)
    except (OSError, ZeroDivisionError):
        pass
def f(x):
    return 3
"""
    got = verdict(program)
    assert got.passed and got.output == ""


def test_no_network_not_even_this_machine():
    needs("network namespace")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = (
            "import socket\ndef f(x):\n    try:\n"
            f"        socket.create_connection(('127.0.0.1', {port}), 1)\n        return 4\n"
            "    except OSError as error:\n        print(error)\n        return 3\n"
        )
        got = verdict(program)
    assert got.passed and "unreachable" in got.output


def test_a_fork_bomb_ends_with_its_time():
    program = (
        "import os\ndef f(x):\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass\n"
    )
    start = time.monotonic()
    got = verdict(program)
    assert not got.passed and (got.timeout or got.memory)  # 64 processes, or what they hold, is the end of it
    assert time.monotonic() - start < 10


def test_processes_and_threads_are_counted():
    needs("another user")
    program = (
        "import os, time\ndef f(x):\n    n = 0\n    try:\n        while n < 500:\n            if os.fork() == 0:\n"
        "                time.sleep(9)\n            n += 1\n    except OSError:\n        print(n, flush=True)\n"
        "    return 3\n"
    )
    got = verdict(program, limits=Limits(seconds=3, processes=10))
    assert got.passed and got.output == "9\n0\n"  # the program is the tenth; the test calls twice


def left_over(word: str) -> list[str]:
    """Command lines of processes of a program that are still there (one that was told a marker)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else []:
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if word in line and "pytest" not in line:
            found.append(line)
    return found


@LINUX
def test_a_daemon_does_not_outlive_it():
    marker = f"daemon-{os.getpid()}-{time.monotonic_ns()}"
    program = (
        f"import os, sys\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.close(1); os.close(2)\n"
        f"        os.execv('/bin/sleep', ['{marker}', '30'])\n    os._exit(0)\ndef f(x):\n    return 3\n"
    )
    assert verdict(program).passed
    assert left_over(marker) == []


def test_resource_limits_alone_say_so_and_root_is_refused():
    program = "import os\nos.kill(1, 9)\ndef f(x):\n    return 3\n"
    try:
        got = verdict(program, isolate=False)
    except EvaluationError as error:
        assert os.getuid() == 0 and "another user" in str(error)
        return
    assert not got.passed and "resource limits only" in got.error
    assert set(got.isolation) <= {"resource limits", "another user", "memory of all processes"}
    assert verdict("def f(x):\n    return 3\n", isolate=False).passed


def test_memory_of_one_process_and_of_all_together():
    one = verdict("def f(x):\n    return len(bytearray(10**9))\n")
    assert not one.passed and one.memory and "MemoryError" in one.error
    many = (
        "import os, time\ndef f(x):\n    for _ in range(8):\n        if os.fork() == 0:\n"
        "            block = bytearray(60 * 2**20)\n            time.sleep(9)\n    time.sleep(9)\n    return 3\n"
    )
    got = run_python(many, TEST, entry_point="f", limits=Limits(seconds=4, memory_bytes=128 * 2**20))
    assert not got.passed
    if "memory of all processes" in got.isolation:
        assert got.memory and not got.timeout and "128 MiB" in got.error


def test_endless_output_is_read_and_dropped():
    got = verdict("def f(x):\n    while True:\n        print('x' * 10000)\n")
    assert not got.passed and got.timeout and len(got.output) <= QUICK.output_bytes
    noisy = verdict("def f(x):\n    print('y' * 1_000_000)\n    return 3\n")
    assert noisy.passed and len(noisy.output) == QUICK.output_bytes


def test_an_endless_answer_and_a_huge_file_are_refused():
    answer = verdict("def f(x):\n    return 'x' * (40 * 2**20)\n", limits=Limits(seconds=3))
    assert not answer.passed and "longer" in answer.error
    endless = verdict("def f(x):\n    i = 0\n    while True:\n        yield 0\n")
    assert not endless.passed
    file = verdict(
        "def f(x):\n    open('big', 'wb').write(bytes(40 * 2**20))\n    return 3\n", limits=Limits(seconds=3)
    )
    assert not file.passed


def test_endless_loops_end_whatever_they_catch():
    program = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef f(x):\n    while True:\n        try:\n"
        "            time.sleep(0.1)\n        except BaseException:\n            pass\n"
    )
    got = verdict(program)
    assert not got.passed and got.timeout and "still running after 1 s" in got.error


def test_signals_to_everyone_hit_only_itself():
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"])
    try:
        for target in ("-1", "os.getppid()", "1", "0"):
            got = verdict(f"import os, signal\ndef f(x):\n    os.kill({target}, signal.SIGKILL)\n    return 4\n")
            assert not got.passed
        needs("process namespace")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_environment_holds_no_secrets(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "SECRET")
    got = verdict("import os\nprint(dict(os.environ))\ndef f(x):\n    return 3\n")
    assert got.passed and "SECRET" not in got.output and "PATH" in got.output


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


def test_limits_are_positive():
    with pytest.raises(ValueError, match=r"Limits.seconds must be positive, got 0"):
        Limits(seconds=0)
