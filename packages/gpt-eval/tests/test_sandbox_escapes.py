"""Programs that try to get out, to stay, or to take everything."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandboxed import QUICK, SHORT, TEST, needs, verdict

from gpt_eval.errors import EvaluationError
from gpt_eval.sandbox import Limits, run_python

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")


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
    got = verdict(program, limits=SHORT)
    assert not got.passed and (got.timeout or got.memory)  # 64 processes, or what they hold, is the end of it
    assert time.monotonic() - start < 10


def test_processes_and_threads_are_counted():
    needs("another user")
    program = (
        "import os, time\ndef f(x):\n    n = 0\n    try:\n        while n < 500:\n            if os.fork() == 0:\n"
        "                time.sleep(9)\n            n += 1\n    except OSError:\n        print(n, flush=True)\n"
        "    return 3\n"
    )
    got = verdict(program, limits=Limits(seconds=5, processes=10))
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
    got = run_python(many, TEST, entry_point="f", limits=Limits(seconds=5, memory_bytes=128 * 2**20))
    assert not got.passed
    if "memory of all processes" in got.isolation:
        assert got.memory and not got.timeout and "128 MiB" in got.error


@LINUX
def test_memory_that_no_process_maps_and_sockets_without_namespace():
    needs("system call filter")
    program = """
import ctypes, os, socket
libc = ctypes.CDLL(None)
def f(x):
    for name, call in {
        'memfd': lambda: os.memfd_create('held'),
        'shm': lambda: libc.shmget(0, 64 << 20, 0o1600) < 0 and 1 / 0,
        'netlink': lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        'vsock': lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    }.items():
        try:
            call()
            print('DONE', name)
        except (OSError, ZeroDivisionError):
            pass
    a, b = socket.socketpair()
    return a.send(b'one') if x == 2 else 3
"""
    got = verdict(program)
    assert got.passed and got.output == "", got


def test_endless_output_is_read_and_dropped():
    got = verdict("def f(x):\n    while True:\n        print('x' * 10000)\n", limits=SHORT)
    assert not got.passed and got.timeout and len(got.output) <= SHORT.output_bytes
    noisy = verdict("def f(x):\n    print('y' * 1_000_000)\n    return 3\n")
    assert noisy.passed and len(noisy.output) == QUICK.output_bytes


@pytest.mark.slow
def test_an_endless_answer_and_a_huge_file_are_refused():
    answer = verdict("def f(x):\n    return 'x' * (40 * 2**20)\n", limits=QUICK)
    assert not answer.passed and "longer" in answer.error
    endless = verdict("def f(x):\n    i = 0\n    while True:\n        yield 0\n", limits=SHORT)
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
    got = verdict(program, limits=SHORT)
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
