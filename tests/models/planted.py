"""Plants the bugs of planted.toml, one after the other, and sees that their models find them.

planted.py places              only sees that each bug has its place in the sources

planted.py SCHEDULES [TEXT]...   how often shuttle runs a model (loom runs it in all orders anyway),
                                 and what is in the names of checker and model, if not all

A bug is planted in a copy of the sources, in target/planted-source. The copy is built with the build
directory that CARGO_TARGET_DIR names, so only the crate itself is built anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "target" / "planted-source"


def plant(bug: dict[str, str]) -> None:
    """Makes the copy anew, with the bug in it."""
    shutil.rmtree(COPY, ignore_errors=True)
    for part in ("src", "tests/models"):
        shutil.copytree(ROOT / part, COPY / part, copy_function=shutil.copy2)
    file = COPY / bug["file"]
    text = file.read_text()
    if text.count(bug["old"]) != 1:
        sys.exit(f"error: {bug['file']} has no place, or several, for: {bug['what']}")
    file.write_text(text.replace(bug["old"], bug["new"]))


def build(checker: str) -> Path:
    """Builds the copy; returns the program."""
    manifest = COPY / "tests/models/Cargo.toml"
    command = ["cargo", "build", "--quiet", "--profile=planted", "--manifest-path", str(manifest)]
    subprocess.run([*command, "--features", checker], check=True, env=os.environ)
    return Path(os.environ["CARGO_TARGET_DIR"]) / "planted/kvs-models"


def finds(program: Path, bug: dict[str, str], schedules: str) -> bool:
    """Whether the model fails, by itself and not because there is none of that name."""
    chosen = {"KVS_MODEL": bug["model"], "KVS_MODEL_SCHEDULES": schedules}
    # Some take more than loom's two preemptions.
    chosen["KVS_MODEL_PREEMPTIONS"] = str(bug.get("preemptions", 2))
    ran = subprocess.run(
        [program], env={**os.environ, **chosen}, capture_output=True, text=True, timeout=900
    )
    # A crash is a finding too: freed memory was read.
    return "\nFAILED " in f"\n{ran.stdout}" or ran.returncode < 0


def main() -> None:
    """Plants every bug."""
    bugs = tomllib.loads(Path(__file__).with_name("planted.toml").read_text())["bug"]
    if sys.argv[1:] == ["places"]:
        lost = [bug["what"] for bug in bugs if (ROOT / bug["file"]).read_text().count(bug["old"]) != 1]
        sys.exit("".join(f"error: no place, or several, for: {what}\n" for what in lost) or None)
    names = {id(bug): f"{bug['checker']} {bug['model']}" for bug in bugs}
    bugs = [bug for bug in bugs if all(text in names[id(bug)] for text in sys.argv[2:])]
    # One checker after the other: each has a build of its own.
    bugs.sort(key=lambda bug: bug["checker"])
    missed = 0
    for number, bug in enumerate(bugs, 1):
        began = time.monotonic()
        plant(bug)
        found = finds(build(bug["checker"]), bug, sys.argv[1])
        missed += not found
        seconds = time.monotonic() - began
        outcome = "found " if found else "MISSED"
        print(f"{outcome} {number} of {len(bugs)}: {bug['what']} ({seconds:.0f} s)", flush=True)
    shutil.rmtree(COPY, ignore_errors=True)
    print(f"planted: {len(bugs)} bugs; failures: {missed}")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
