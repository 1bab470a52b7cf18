"""The sandbox: what programs leave, and that the calling process survives whatever they do."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from toolhone.errors import BusyError, CapabilityError, ConfigError
from toolhone.tools.result import ToolStatus
from toolhone.tools.sandbox import MAX_SOURCE, Limits, Sandbox

linux = pytest.mark.skipif(sys.platform != "linux", reason="CPU clocks of processes are Linux's")
OK, ERROR, TIMEOUT = ToolStatus.OK, ToolStatus.ERROR, ToolStatus.TIMEOUT
LATEST = 60.0
"""Seconds within which every program ends, on a busy machine too."""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(seconds=0.4)) as made:
        made.run("1")
        yield made


def workers(parent: int | None = None) -> set[int]:
    """The living workers of a process (this one by default)."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat=,comm="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {
        int(row[0])
        for row in rows
        if row[1] == str(parent or os.getpid()) and "monty" in row[3] and "Z" not in row[2]
    }


def alive(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def survives(sandbox: Sandbox, code: str) -> tuple[ToolStatus, str, str]:
    """Run a hostile program: it ends in time, and the next program runs correctly. Outcome, error,
    stdout.
    """
    started = time.perf_counter()
    result = sandbox.run(code)
    assert time.perf_counter() - started < LATEST
    assert sandbox.run("6 * 7").value == 42
    assert len(result.stdout) <= sandbox.limits.output_chars
    assert "\n" not in result.error
    return result.outcome, result.error, result.stdout


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("x = 6\nx * 7", 42),
        ("import math; math.sqrt(16)", 4.0),
        ("def f():\n    return [1, 'a', None]\n\nf()\n\n# the end", [1, "a", None]),
        ("x = {'a': 1.5,\n     'b': True}\nx", {"a": 1.5, "b": True}),
        ("(\n1,\n2,\n)", [1, 2]),
        ("'a;b'", "a;b"),
        ("x = 'a;b'; x", "a;b"),
        ("1;", 1),
        ("import asyncio\nasync def f(): return 5\nawait f()", 5),
        ("if True:\n    5", None),
        ("x = 1 + \\\n2", None),
        ("x = 1 # a; b", None),
        ("x = 1; y = 2;\n# c; d", None),
        ("x = '''\na\n1\n'''", None),
        ("for i in range(3): x = i; x", None),
        ("", None),
        ("float('nan')", "nan"),
        ("{1, 2}", "{1, 2}"),
    ],
)
def test_the_value_is_that_of_the_expression_with_which_the_program_ends(sandbox, code, value):
    result = sandbox.run(code)
    assert (result.outcome, result.value, result.error) == (OK, value, "")


def test_a_statement_after_a_semicolon_in_a_loop_stays_in_the_loop(sandbox):
    assert sandbox.run("for i in range(3): print(i); print('-')").stdout == "0\n-\n1\n-\n2\n-\n"


def test_a_comment_is_never_run(sandbox):
    assert sandbox.run("print('a')  # then; print('b')").stdout == "a\n"


def test_printed_text_of_both_streams_is_kept_beside_the_value(sandbox):
    result = sandbox.run("import sys\nprint('a')\nprint('b', file=sys.stderr)\n3")
    assert (result.stdout, result.value, result.text) == ("a\nb\n", 3, "3")


def test_long_output_is_cut_with_a_visible_mark(sandbox):
    result = sandbox.run("for i in range(1000): print('0123456789')")
    assert result.outcome is OK
    assert result.stdout.endswith("… [cut: 11,000 characters in all]")
    assert len(result.stdout) == sandbox.limits.output_chars


def test_a_long_value_is_its_cut_repr(sandbox):
    result = sandbox.run("list(range(5000))")
    assert result.value == result.text
    assert len(result.text) == sandbox.limits.output_chars
    assert result.text.startswith("[0, 1, 2")
    assert result.text.endswith("…")


def test_an_error_is_one_line_with_the_type_the_text_and_the_line(sandbox):
    result = sandbox.run("print('before')\ndef f():\n    return 1 / 0\nf()\n5")
    assert (result.outcome, result.error) == (ERROR, "ZeroDivisionError: division by zero (line 3)")
    assert result.stdout == "before\n"
    assert result.value is None


def test_a_program_that_raises_timeout_error_has_not_timed_out(sandbox):
    assert sandbox.run("raise TimeoutError('x')").outcome is ERROR


def test_runs_do_not_see_each_other(sandbox):
    sandbox.run("secret = 41\nimport math\nmath.pi")
    assert "NameError" in sandbox.run("secret").error


def test_random_numbers_are_the_same_in_every_run(sandbox):
    code = "import random\nrandom.random()"
    assert sandbox.run(code).value == sandbox.run(code).value


def test_limits_that_are_not_positive_are_refused():
    with pytest.raises(ConfigError, match="'seconds' above 0, got 0"):
        Limits(seconds=0)


def test_the_limits_are_those_that_were_asked_for():
    with Sandbox(Limits(seconds=0.2, memory_mb=16, recursion=50, output_chars=100)) as small:
        assert small.run("len('a' * 5_000_000)").value == 5_000_000
        assert (
            small.run("len('a' * 20_000_000)").error
            == "MemoryError: the program needed more than 16 MB (line 1)"
        )
        deep = "def f(n): return n and 1 + f(n - 1)\nf({})"
        assert small.run(deep.format(30)).value == 30
        assert "RecursionError" in small.run(deep.format(80)).error
        assert len(small.run("print('a' * 1000)").stdout) == 100
        late = small.run("while True: pass")
        assert (late.outcome, late.error) == (
            TIMEOUT,
            "TimeoutError: the program ran longer than 0.2 s",
        )
        assert late.seconds < LATEST


BUSY = "x = 0\nfor i in range(1000): x += i\nx / 5"


@pytest.fixture
def paused() -> Iterator[Callable[[Sandbox, float], None]]:
    """Stops a sandbox's worker, as a busy machine does, and lets it go on after some seconds."""
    timers: list[threading.Timer] = []

    def pause(sandbox: Sandbox, seconds: float) -> None:
        before = workers()
        assert sandbox.run("6 / 5").value == 1.2
        for pid in workers() - before:
            os.kill(pid, signal.SIGSTOP)
            timers.append(threading.Timer(seconds, resume, (pid,)))
            timers[-1].start()

    yield pause
    for timer in timers:
        timer.join()


def resume(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@linux
def test_time_that_the_machine_takes_does_not_count(paused):
    with Sandbox(Limits(seconds=0.1), workers=1) as sandbox:
        paused(sandbox, 0.6)
        result = sandbox.run(BUSY)
        assert (result.outcome, result.value) == (OK, 99900.0)
        assert result.seconds > 0.4, "more than the limit has passed"


@linux
def test_a_machine_without_time_is_reported_and_no_verdict_on_the_program(paused, monkeypatch):
    monkeypatch.setattr("toolhone.tools.sandbox.PATIENCE", 2)
    with Sandbox(Limits(seconds=0.1), workers=1) as sandbox:
        paused(sandbox, 2.0)
        with pytest.raises(
            BusyError, match=r"less than 0.25 s of CPU time within 0.5 s; run fewer"
        ):
            sandbox.run(BUSY)
        assert sandbox.run(BUSY).value == 99900.0


@linux
def test_a_program_ends_when_its_cpu_time_is_used_up():
    with Sandbox(Limits(seconds=0.3)) as sandbox:
        before = os.times()
        assert sandbox.run("while True: pass").outcome is TIMEOUT
        assert sandbox.run("1 + 1").value == 2
        sandbox.close()
        after = os.times()
        used = sum(after[2:4]) - sum(before[2:4])  # CPU time of child processes
        assert 0.25 < used < 1


# Ten hostile programs and more, one property each.


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "while True:\n  try:\n    while True: pass\n  except BaseException: pass"],
)
def test_an_endless_loop_times_out(sandbox, code):
    assert survives(sandbox, code)[0] is TIMEOUT


@pytest.mark.parametrize(
    "code",
    [
        "x = []\nwhile True: x.append('a' * 1000)",
        "'a' * 10**10",
        "[0] * 10**10",
        "x = [1]\nfor _ in range(100): x = x + x",
        "x = 1\nfor _ in range(40): x = [x, x]\nx",
        "f'{1:>10000000000}'",
        "'%10000000000d' % 1",
        "'a'.ljust(10**10)",
        "try:\n  x = 'a' * 10**10\nexcept BaseException: pass",
    ],
)
def test_a_memory_bomb_is_an_error(sandbox, code):
    outcome, error, _ = survives(sandbox, code)
    assert (outcome in (ERROR, TIMEOUT), "Error: " in error) == (True, True)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.fork()",
        "import os\nos.system('ls')",
        "import subprocess",
        "import multiprocessing",
    ],
)
def test_no_process_can_be_started(sandbox, code):
    before = workers()
    assert survives(sandbox, code)[0] is ERROR
    assert workers() <= before


def test_files_can_be_neither_read_nor_written_nor_listed(sandbox, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden")
    for code in (
        f"print(open({str(secret)!r}).read())",
        f"import pathlib\nprint(pathlib.Path({str(secret)!r}).read_text())",
    ):
        outcome, error, stdout = survives(sandbox, code)
        assert (outcome, "hidden" in error + stdout) == (ERROR, False)
    assert survives(sandbox, f"open({str(tmp_path / 'new')!r}, 'w').write('x')")[0] is ERROR
    assert survives(sandbox, "import os\nos.listdir('/')")[0] is ERROR
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "code", ["import socket", "import urllib.request", "import http.client", "import ssl"]
)
def test_there_is_no_network(sandbox, code):
    outcome, error, _ = survives(sandbox, code)
    assert (outcome, "ModuleNotFoundError" in error) == (ERROR, True)


@pytest.mark.parametrize(
    "code",
    [
        "def f(): return f()\nf()",
        "def f():\n  exec('f()')\nf()",
        "(lambda f: f(f))(lambda f: f(f))",
    ],
)
def test_deep_recursion_is_an_error(sandbox, code):
    outcome, error, _ = survives(sandbox, code)
    assert (outcome, "RecursionError" in error) == (ERROR, True)


@pytest.mark.parametrize(
    "code",
    ["while True: print('x' * 1000)", "while True: print(end='')", "print('a' * 30_000_000)"],
)
def test_huge_output_is_cut_and_ends(sandbox, code):
    survives(sandbox, code)


def test_the_environment_cannot_be_read(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    for code in (
        "import os\nprint(os.environ)",
        "import os\nprint(os.getenv('SECRET_TOKEN'))",
        "print(open('/proc/self/environ').read())",
    ):
        outcome, error, stdout = survives(sandbox, code)
        assert (outcome, "hidden" in error + stdout) == (ERROR, False)


@pytest.mark.parametrize(
    "code",
    [
        "().__class__.__bases__[0].__subclasses__()",
        "getattr(1, '__cl' + 'ass__')",
        "'{0.__class__.__init__.__globals__}'.format(1)",
        "__import__('os')",
        "__builtins__",
        "import builtins",
        "import ctypes",
        "import importlib",
        "import sys\nsys.modules",
        "import sys\nsys._getframe()",
        "(lambda: 0).__globals__",
        "print.__self__",
    ],
)
def test_import_and_dunder_tricks_lead_nowhere(sandbox, code):
    assert survives(sandbox, code)[0] is ERROR


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n  try: raise ValueError('x' * 1000)\n  except ValueError: pass",
        "def f():\n  try: f()\n  finally: f()\nf()",
        "raise Exception('a' * 20_000_000)",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "while True:\n  try: nothing\n  except NameError: pass",
    ],
)
def test_exceptions_of_any_kind_and_number_stay_inside(sandbox, code):
    outcome, error, _ = survives(sandbox, code)
    assert outcome in (ERROR, TIMEOUT)
    assert len(error) < 600


@pytest.mark.parametrize(
    "code", ["import time\ntime.sleep(1000)", "import time\nwhile True: time.sleep(1)"]
)
def test_sleeping_takes_no_longer_than_the_limit(sandbox, code):
    survives(sandbox, code)


@pytest.mark.parametrize(
    "code",
    [
        "10**10**8",
        "9**9**9**9",
        "x = 1\nwhile True: x = x * x + 1",
        "1 << 10**12",
        "import math\nmath.factorial(10**7)",
        "10**5000",
    ],
)
def test_powers_of_big_integers_end(sandbox, code):
    assert survives(sandbox, code)[0] in (ERROR, TIMEOUT)


@pytest.mark.parametrize(
    "code",
    [
        "(" * MAX_SOURCE,
        "-" * (MAX_SOURCE - 1) + "1",
        "1+" * (MAX_SOURCE // 2 - 1) + "1",
        "lambda:" * 2000 + "1",
        "f'{" * 5000,
        "(\n" * (MAX_SOURCE // 2),
        "a b\n" * (MAX_SOURCE // 4),
        "1 1;" * (MAX_SOURCE // 4),
        "9" * MAX_SOURCE,
        "x = 1\n" * MAX_SOURCE,
        "\x00" * 100,
        "x = '\ud800'",
        "eval('(' * 100000)",
    ],
)
def test_sources_made_to_break_a_parser_are_errors(sandbox, code):
    assert survives(sandbox, code)[0] is ERROR


@pytest.mark.parametrize(
    "code",
    [
        "re.match('(a+)+$', 'a' * 5000 + 'b')",
        "re.match(r'(a*)*\\1b', 'a' * 3000)",
        "re.compile('|'.join('a' * i for i in range(3000)))",
    ],
)
def test_catastrophic_patterns_end(sandbox, code):
    survives(sandbox, f"import re\n{code}")


@pytest.mark.parametrize("value", ["set({})", "{{i: 0 for i in {}}}", "frozenset({})"])
def test_values_that_are_slow_to_build_do_not_stop_the_calling_process(sandbox, value):
    survives(sandbox, value.format("[i * (2**61 - 1) for i in range(20_000)]"))


def test_a_program_cannot_replace_what_sends_its_value(sandbox):
    code = (
        "repr = str = len = lambda *_: {1: 2}\nTypeError = 5\n"
        "class A:\n    def __repr__(self): return 'mine'\nA()"
    )
    outcome, _, _ = survives(sandbox, code)
    assert outcome in (OK, ERROR)
    assert sandbox.run("json = 5\nrepr = lambda _: 7\n[1]").value == [1]


def test_a_step_that_cannot_be_interrupted_is_ended_by_force_and_the_worker_replaced(sandbox):
    before = workers()
    outcome, _, _ = survives(sandbox, "x = 3\nwhile True: x = x * x")
    assert outcome is TIMEOUT
    assert before - workers(), "the worker that was stuck is gone"


# Workers.


def test_workers_start_with_the_first_run_and_end_with_close():
    before = workers()
    sandbox = Sandbox()
    assert workers() == before
    assert sandbox.run("1 + 1").value == 2
    assert len(workers() - before) == 1
    sandbox.close()
    assert workers() == before
    assert sandbox.run("1 + 2").value == 3
    sandbox.close()
    assert workers() == before


def test_workers_end_when_the_sandbox_is_forgotten():
    before = workers()
    sandbox = Sandbox()
    sandbox.run("1")
    assert workers() != before
    del sandbox
    gc.collect()
    assert workers() == before


@pytest.mark.parametrize("killed", [False, True])
def test_workers_end_with_the_process(killed):
    code = (
        "from toolhone.tools.sandbox import shared_sandbox as s; s().run('1'); "
        "print('ready', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started = workers(process.pid)
        assert len(started) == 1
        if killed:
            process.kill()
        else:
            process.communicate("\n")
    until = time.monotonic() + LATEST
    while (left := [pid for pid in started if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left


def test_a_worker_that_was_killed_from_outside_is_replaced():
    with Sandbox() as sandbox:
        before = workers()
        sandbox.run("1")
        for pid in workers() - before:
            os.kill(pid, 9)
        assert [sandbox.run("2").value for _ in range(3)][1:] == [2, 2]


def test_threads_share_a_sandbox_and_each_gets_its_own_answer():
    answers: dict[tuple[int, int], object] = {}
    with Sandbox(workers=2) as sandbox:

        def work(i: int) -> None:
            for j in range(5):
                answers[i, j] = sandbox.run(f"{i} * 100 + {j}").value

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {(i, j): i * 100 + j for i in range(6) for j in range(5)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_is_refused_and_leaves_the_workers_of_its_parent_alone():
    with Sandbox() as sandbox:
        sandbox.run("1")
        before = workers()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            status = 1
            try:
                sandbox.run("1")
            except CapabilityError:
                sandbox.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert workers() == before
        assert sandbox.run("2").value == 2


def test_a_missing_worker_program_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MONTY_BIN", "/nonexistent/monty")
    with pytest.raises(CapabilityError, match="worker cannot be started"):
        Sandbox().run("1")
