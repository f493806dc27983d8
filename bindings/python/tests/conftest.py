"""What several test files share."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kvs

# What every interpreter of the tests is run with: development mode, warnings are errors.
STRICT = ("-X", "dev", "-W", "error", "-bb")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store can be made."""
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[kvs.Store]:
    """An empty store."""
    with kvs.open(path) as opened:
        yield opened


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in an interpreter of its own and return how it ended."""
    return subprocess.run(
        [sys.executable, *STRICT, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check_python(code: str, *arguments: object) -> str:
    """Run ``code`` in an interpreter of its own, which must end well and in silence."""
    done = run_python(code, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def in_fork(body: Callable[[], str]) -> str:
    """Run ``body`` in a forked child and return its result, or the exception it ended with."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # That a process with threads is forked is what some of these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            answer = body()
        except BaseException as error:  # noqa: BLE001  told to the parent
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        if not select.select([pipe], [], [], 30)[0]:
            os.kill(pid, signal.SIGKILL)
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer or "the child hung or died"
