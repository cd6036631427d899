"""Runs one generated program with its test and says whether it passed: the only door to `warden`.

Every program runs in processes of its own: `warden` sets up the jail, `worker` has the program, `checker` the test.
A Python program is never in one process with its test, so it cannot pass by leaving early, by answering with objects
that are equal to everything, or by reading what is expected. C++ and JavaScript programs carry their test with them:
there an early exit is caught (the word is missing), and so is JavaScript that replaces `console` or its `assert`. A
program written to deceive is not: C++ can `#define assert`, JavaScript can declare a `console` of its own, both can
read the word in their own file or memory and write it. Their passes are worth what the model's good faith is.
"""

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gpt_eval.errors import EvaluationError
from gpt_eval.sandbox.limits import MIB, Limits

HERE = Path(__file__).resolve().parent
LOAD = "import sys, importlib as i; sys.path.insert(0, sys.argv.pop(1)); i.import_module(sys.argv.pop(1)).main()"
GRACE_SECONDS = 10.0
"""For setting up and clearing away, beyond the program's own time; then all of it is killed from outside."""

COMPILE = {"seconds": 60.0, "cpu": 60, "memory": 1024 * MIB}
"""Bounds for the compiler, which is not the program."""


@dataclass(frozen=True)
class Execution:
    """What came of one program."""

    passed: bool
    timeout: bool = False
    memory: bool = False
    """Killed for its memory, or it was refused more."""
    error: str = ""
    """The last line of the traceback, or what else went wrong; empty for a program that passed."""
    output: str = ""
    """The beginning of what the program printed."""
    isolation: tuple[str, ...] = ()
    """What held it: "resource limits", "network namespace", "own root", "another user", ..."""

    def as_dict(self) -> dict[str, Any]:
        """For samples.jsonl."""
        return asdict(self) | {"isolation": list(self.isolation)}


def run_python(
    source: str,
    test: str,
    *,
    entry_point: str = "",
    prelude: str = "",
    call: str | None = None,
    limits: Limits | None = None,
    isolate: bool = True,
) -> Execution:
    """Runs a program, then its test against it. Only the standard library can be imported.

    source: the program; names that it defines can be used by the test.
    test: trusted code; raises for a wrong program.
    entry_point: the function that `call` hands to the test; a program without it fails.
    prelude: the benchmark's own code around the program (its prompt), whose helpers the test uses instead of the
        program's; may break off anywhere.
    call: run after the test; by default `check(ENTRY_POINT)` where the test defines `check`.
    isolate: False for resource limits only, as on systems other than Linux.
    Arguments and results cross as plain data: an object of a class of the program can be called and asked for
    attributes, and is equal to itself only.
    """
    if call is None:
        call = f"check({entry_point})" if "def check(" in test else ""
    word = secrets.token_hex(16)
    order = {"source": source, "test": test, "entry_point": entry_point, "prelude": prelude, "call": call, "word": word}
    return _execute({"check": order}, word, limits or Limits(), isolate)


def run_native(
    language: Literal["c++", "javascript"], source: str, *, limits: Limits | None = None, isolate: bool = True
) -> Execution:
    """Runs a program that carries its own test; passed if it ends with 0 after its last line (C++: after main).

    Raises FileNotFoundError without a compiler or interpreter: see `toolchain`.
    """
    tool = toolchain(language)
    if tool is None:
        raise FileNotFoundError(f"{language} programs need {NEEDED[language]}, which is not on this machine's PATH")
    word = secrets.token_hex(16)
    steps = _cpp(tool, source, word) if language == "c++" else _javascript(tool, source, word)
    return _execute(steps, word, limits or Limits(), isolate)


NEEDED = {"c++": "g++", "javascript": "node"}


@cache
def toolchain(language: str) -> str | None:
    """The path of what compiles or runs a language, None where it is missing."""
    return shutil.which(NEEDED[language])


def _cpp(compiler: str, source: str, word: str) -> dict[str, Any]:
    guard = (
        "#include <unistd.h>\n"
        'extern "C" int __real_main(int, char**);\n'
        'extern "C" int __wrap_main(int count, char** words) {\n'
        f'  int code = __real_main(count, words); if (write(3, "{word}", {len(word)}) < 0) return 1; return code; }}\n'
    )
    build = [compiler, "-std=c++17", "-O1", "-w", "-Wl,--wrap=main", "program.cpp", "guard.cpp", "-o", "program"]
    return {
        "files": {"program.cpp": source, "guard.cpp": guard},
        "steps": [
            {"name": "compile", "argv": build, "bounds": COMPILE},
            {"name": "run", "argv": ["./program"], "bounds": {}},
        ],
    }


def _javascript(interpreter: str, source: str, word: str) -> dict[str, Any]:
    # console.assert only prints; the tests of HumanEval-X mean it to fail.
    strict = (
        "{ const value = (ok, ...rest) => { if (!ok) throw new Error(rest.join(' ') || 'assertion failed'); };\n"
        "const fixed = { writable: false, configurable: false };\n"
        "Object.defineProperty(console, 'assert', { value, ...fixed });\n"
        "Object.defineProperty(globalThis, 'console', { value: console, ...fixed }); }\n"
    )
    last = f'\n;require("fs").writeSync(3, "{word}");\n'
    argv = [interpreter, "--max-old-space-size=192", "--single-threaded", "program.js"]
    # V8 reserves far more address space than it uses: its resident memory is bounded instead.
    step = {"name": "run", "argv": argv, "bounds": {"address_space": False}}
    return {"files": {"program.js": strict + source + last}, "steps": [step]}


def _execute(work: dict[str, Any], word: str, limits: Limits, isolate: bool) -> Execution:
    report = _warden(work, limits, isolate)
    if isolate and report.get("unisolated"):  # said before any program began
        report = _warden(work, limits, False)
    if "failed" in report:
        raise EvaluationError(f"the sandbox could not be set up, so no program was run: {report['failed']}")
    if "lost" in report:
        return Execution(passed=False, error=f"the sandbox broke off: {report['lost']}")
    said = _said(report["said"])
    held = tuple(report["in_force"])
    common = {"timeout": report["timeout"], "output": report["output"], "isolation": held}
    passed = said.get("word") == word and report["status"] == 0
    error = "" if passed else said.get("error") or _why(report, limits)
    memory = report["memory"] or error.startswith("MemoryError") or "std::bad_alloc" in report["output"]
    return Execution(passed=passed, memory=memory and not passed, error=error, **common)


def _said(text: str) -> dict[str, str]:
    """What the checker wrote: JSON; a native program writes the word and nothing else."""
    try:
        said = json.loads(text)
    except ValueError:
        return {"word": text}
    return said if isinstance(said, dict) else {"word": text}


def _why(report: dict[str, Any], limits: Limits) -> str:
    if report["timeout"]:
        if report.get("step") == "compile":
            return f"still compiling after {COMPILE['seconds']:g} s"
        return f"still running after {limits.seconds:g} s"
    if report["memory"]:
        return f"its processes held more than {limits.memory_bytes // MIB} MiB together"
    if report["status"] == 0:
        return "the program ended before its test did"
    lines = report["output"].strip().splitlines()
    last = [line for line in lines if "Error" in line or "ssertion" in line][-1:] or lines[-1:] or [""]
    code = report["status"]
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
    step = f"{report['step']}: " if report.get("step") else ""
    return f"{step}{how} {last[0]}".strip()[:500]


def _warden(work: dict[str, Any], limits: Limits, isolate: bool) -> dict[str, Any]:
    """Runs `warden` on an order and returns its report."""
    python = str(Path(sys.executable).resolve())
    bare = [python, "-I", "-S", "-B", "-X", "utf8", "-c", LOAD, str(HERE)]
    show = [str(HERE), sys.base_prefix, sys.base_exec_prefix, str(Path(python).parent)]
    bounds = {
        "seconds": limits.seconds,
        "cpu": limits.cpu_seconds,
        "memory": limits.memory_bytes,
        "address_space": True,
        "processes": limits.processes,
        "file": limits.file_bytes,
        "output": limits.output_bytes,
    }
    with tempfile.TemporaryDirectory(prefix="gpt-eval-", ignore_cleanup_errors=True) as base:
        Path(base).chmod(0o711)
        order = work | {"bounds": bounds, "base": base, "bare": bare, "show": show, "isolate": isolate}
        longest = limits.seconds + GRACE_SECONDS + (COMPILE["seconds"] if "steps" in work else 0)
        process = subprocess.Popen(
            [*bare, "inside.warden"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
        try:
            out, complaint = process.communicate(json.dumps(order).encode(), timeout=longest)
        except subprocess.TimeoutExpired:
            out, complaint = b"", b""
        finally:
            process.kill()
            process.communicate()
    if out:
        return json.loads(out)
    if complaint:
        return {"failed": complaint.decode(errors="replace").strip()[-500:]}
    return {"lost": "killed" if process.returncode else "no report"}


@cache
def isolation() -> tuple[str, ...]:
    """What holds a program on this machine, found out by running an empty one.

    Raises EvaluationError where not even that runs: every program would count as wrong.
    """
    empty = run_python("", "")
    if not empty.passed:
        raise EvaluationError(
            f"the sandbox cannot run an empty program here ({empty.error} {empty.output[-300:]}): does the interpreter "
            f"{sys.executable} need files outside {sys.base_prefix} and the system's libraries?"
        )
    return empty.isolation
