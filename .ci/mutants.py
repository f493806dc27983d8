"""Mutation tests of the rooms that hold the data: is every change of their code noticed?

mutants.py [ROOM...]   record manifest recovery compaction writer; all of them if none is named

For each room it lists the mutants of cargo-mutants, and tests those that no earlier run has tested:
what is known is kept in target/mutants/ROOM.tsv, so a run that was stopped goes on. KVS_MUTANTS_MAX
bounds how many are tested now. A mutant that is missed is expected if .ci/mutants.toml lists it with
a reason. Fails if fewer than 90 % of those tested are caught.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
TOOLS = ROOT / "target" / "tools"
CAUGHT_MIN = 0.9
# Tested in one go: what was tested before is kept if this is stopped.
PORTION = 20

ROOMS = {
    "record": ["src/store/record.rs"],
    "manifest": ["src/store/manifest.rs"],
    "recovery": ["src/store/recovery.rs", "src/store/log_end.rs"],
    "compaction": ["src/store/compaction.rs", "src/store/compaction/*.rs"],
    "writer": ["src/store/writer.rs", "src/store/writer/*.rs"],
}


def tool() -> str:
    """The path of cargo-mutants, installed if it is not there."""
    path = TOOLS / "bin" / "cargo-mutants"
    if not path.exists():
        command = ["cargo", "install", "--locked", "--root", str(TOOLS), "cargo-mutants"]
        subprocess.run(command, check=True, env={**os.environ, "CARGO_TARGET_DIR": f"{TOOLS}/build"})
    return str(path)


def listed(program: str, files: list[str]) -> list[str]:
    """The names of all mutants of `files`."""
    chosen = [word for file in files for word in ("--file", file)]
    ran = subprocess.run(
        [program, "mutants", "--list", "--json", *chosen],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [mutant["name"] for mutant in json.loads(ran.stdout)]


def known(room: str) -> dict[str, str]:
    """What earlier runs have found, by the name of the mutant."""
    file = WORK / f"{room}.tsv"
    lines = file.read_text().splitlines() if file.exists() else []
    return dict(line.split("\t", 1)[::-1] for line in lines)


def test(program: str, names: list[str], files: list[str], room: str) -> None:
    """Tests the mutants `names`, and writes down what becomes of each."""
    chosen = [word for file in files for word in ("--file", file)]
    # Only unit tests: they are where the failing and the modelled disks are.
    pattern = "^(" + "|".join(map(re.escape, names)) + ")$"
    command = [program, "mutants", *chosen, "--re", pattern, "--output", str(WORK / room)]
    command += ["--timeout", "300", "--baseline", "skip", "--no-shuffle", "--copy-vcs", "false"]
    command += ["--", "--lib"]
    # One build directory for all runs, so that dependencies are built once.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(WORK / "build")}
    subprocess.run(command, cwd=ROOT, check=False, env=environment)
    with (WORK / f"{room}.tsv").open("a") as file:
        for outcome in ("caught", "missed", "timeout", "unviable"):
            found = WORK / room / "mutants.out" / f"{outcome}.txt"
            for name in found.read_text().splitlines() if found.exists() else []:
                file.write(f"{outcome}\t{name}\n")


def main() -> None:
    """Tests what is left to test, and reports on everything that is known."""
    program = tool()
    WORK.mkdir(parents=True, exist_ok=True)
    reasons = tomllib.loads((ROOT / ".ci" / "mutants.toml").read_text())
    left = int(os.environ.get("KVS_MUTANTS_MAX", "100000"))
    caught = tested = unexplained = 0
    for room in sys.argv[1:] or ROOMS:
        names = listed(program, ROOMS[room])
        untested = [name for name in names if name not in known(room)][:left]
        for start in range(0, len(untested), PORTION):
            portion = untested[start : start + PORTION]
            test(program, portion, ROOMS[room], room)
            print(f"{room}: {start + len(portion)} of {len(untested)} tested now", flush=True)
            shutil.rmtree(WORK / room, ignore_errors=True)
        left -= len(untested)
        outcomes = {name: outcome for name, outcome in known(room).items() if name in names}
        missed = [name for name, outcome in outcomes.items() if outcome == "missed"]
        counted = [outcome for outcome in outcomes.values() if outcome != "unviable"]
        caught += len(counted) - len(missed)
        tested += len(counted)
        print(f"{room}: {len(names)} mutants, {len(counted)} tested, {len(missed)} missed")
        for name in missed:
            # Lines move; what is after them does not.
            place = re.sub(r":\d+:\d+:", ":", name)
            unexplained += place not in reasons
            print(f"  {name}\n    {reasons.get(place, 'NO REASON IS GIVEN')}")
    ratio = caught / tested if tested else 0
    failed = int(ratio < CAUGHT_MIN) + unexplained
    print(
        f"soak-mutants: {tested} mutants, {caught} caught ({ratio:.1%}), "
        f"{unexplained} missed without a reason; failures: {failed}"
    )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
