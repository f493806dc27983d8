"""Runs the code blocks of documents: .ci/readme.py FILE...

Each fenced block says its language, and that decides what is done with it:

    rust    nothing here; rustdoc compiles and runs it (`cargo test --doc`)
    c       compiled as C99 with every warning an error, linked with libkvs, run
    python  run, with warnings as errors
    sh      run by bash, stopping at the first error, with the programs in PATH
    toml    parsed
    text    shown only; but a line `make TARGET` must name a target that exists

A block runs in an empty directory of its own. Where it has comments `prints: LINE`, its output
must be those lines. A block without a language, or with another one, is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "target" / "release"
BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
PRINTS = re.compile(r"(?:#|//|/\*) prints: (.*?)(?: \*/)?$", re.MULTILINE)
SECONDS_MAX = 60


class Block(NamedTuple):
    place: str
    language: str
    code: str


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT)
    return [
        Block(f"{name}:{text.count(chr(10), 0, found.start()) + 1}", found[1], found[2])
        for found in BLOCK.finditer(text)
    ]


def run(command: list[str], cwd: str) -> str:
    """Returns what `command` prints; raises if it fails or hangs."""
    # The Python package as pip installs it, with the library that it ships.
    env = dict(os.environ, PYTHONPATH=str(ROOT / "target" / "site"), LD_LIBRARY_PATH=str(BUILT))
    env.pop("KVS_LIBRARY", None)
    env["PATH"] = f"{BUILT}{os.pathsep}{env['PATH']}"
    # A session of its own, so that what a block leaves running can be ended with it.
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, complained = process.communicate(timeout=SECONDS_MAX)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise RuntimeError(f"exit status {process.returncode}\n{printed}{complained}")
    return printed


def run_c(code: str, cwd: str) -> str:
    Path(cwd, "block.c").write_text(code, encoding="utf-8")
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    where = [f"-I{ROOT / 'include'}", f"-L{BUILT}"]
    run(["cc", *strict, *where, "block.c", "-lkvs", "-o", "block"], cwd)
    return run(["./block"], cwd)


def run_python(code: str, cwd: str) -> str:
    python = str(ROOT / "target" / "venv" / "bin" / "python")
    return run([python, "-W", "error", "-c", code], cwd)


def run_sh(code: str, cwd: str) -> str:
    return run(["bash", "-euo", "pipefail", "-c", code], cwd)


def check_toml(code: str, cwd: str) -> str:
    del cwd
    tomllib.loads(code)
    return ""


def check_text(code: str, cwd: str) -> str:
    del cwd
    for target in re.findall(r"^\s*make ([\w-]+)", code, re.MULTILINE):
        run(["make", "--dry-run", "--silent", target], str(ROOT))
    return ""


RUNNERS = {
    "c": run_c,
    "python": run_python,
    "sh": run_sh,
    "text": check_text,
    "toml": check_toml,
}


def check(block: Block) -> None:
    if block.language == "rust":
        return
    if block.language not in RUNNERS:
        raise RuntimeError(f"language {block.language!r} is none of rust, {', '.join(RUNNERS)}")
    with tempfile.TemporaryDirectory() as cwd:
        printed = RUNNERS[block.language](block.code, cwd).splitlines()
    promised = PRINTS.findall(block.code)
    if promised and printed != promised:
        raise RuntimeError(f"promised {promised}\nprinted  {printed}")


def main() -> int:
    failed = 0
    languages = set()
    for document in sys.argv[1:]:
        for block in blocks(ROOT / document):
            languages.add(block.language)
            try:
                check(block)
                print(f"ok      {block.place} {block.language}")
            except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAILED  {block.place} {block.language}: {error}")
    # The README shows a first program in each of these; none found means none was checked.
    missing = {"rust", "c", "python", "sh"} - languages
    if missing:
        print(f"FAILED  no block in {', '.join(sorted(missing))}")
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
