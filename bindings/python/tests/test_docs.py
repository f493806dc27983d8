"""Every example in the documentation runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import STRICT

import kvs

ROOT = Path(__file__).resolve().parent.parent
MODULES = ["kvs", *(f"kvs.{path.stem}" for path in Path(kvs.__file__).parent.glob("_[a-z]*.py"))]


def examples_of(text: str, name: str) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(text, {}, name, name, 0)


def check_examples(test: doctest.DocTest) -> int:
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    return len(test.examples)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, test in enumerate(doctest.DocTestFinder().find(importlib.import_module(name))):
        directory = tmp_path / str(number)
        directory.mkdir()
        monkeypatch.chdir(directory)
        doctest.DebugRunner().run(test)


def test_docstrings_have_examples() -> None:
    found = [test for test in doctest.DocTestFinder().find(kvs) if test.examples]
    assert found


def test_examples_of_the_readme_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, as one session."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    assert check_examples(examples_of("\n".join(blocks), "README.md")) >= len(blocks) > 5


def test_every_exception_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in kvs.__all__:
        if name.endswith("Error"):
            assert f"`{name}`" in readme, name


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert [path.name for path in EXAMPLES] == ["embed.py", "serve.py"]
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 25 for path in EXAMPLES)


def test_the_example_embed_counts_its_runs(tmp_path: Path) -> None:
    for run in (1, 2):
        done = subprocess.run(
            [sys.executable, *STRICT, ROOT / "examples" / "embed.py", tmp_path / "store"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"run {run}" in done.stdout


def test_the_example_serve_answers_until_its_input_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, *STRICT, ROOT / "examples" / "serve.py", tmp_path / "store"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as host:
        assert host.stdout
        line = host.stdout.readline()
        assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+\n", line)
        try:
            out, err = host.communicate(timeout=30)
        finally:
            host.kill()
    assert (host.returncode, out, err) == (0, "stopped\n", "")
