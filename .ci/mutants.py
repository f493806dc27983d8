"""Mutation tests of the rooms that hold the data: is every change of their code noticed?

mutants.py [ROOM...]   record manifest recovery compaction writer; all of them if none is named

For each room it lists the mutants of cargo-mutants, and tests those that no earlier run has tested:
what is known is kept in target/mutants/ROOM.tsv, so a run that was stopped goes on. KVS_MUTANTS_MAX
bounds how many are tested now. A mutant that is missed is expected if .ci/mutants.toml lists it with
a reason. Fails if fewer than 90 % of those tested are caught.

What makes a mutant cheap: they are planted in one copy of the sources, at a place that stays, so the
compiler goes on from what it knows; the second engine and the programs are left out; the tests end
with the first that fails, and those that take long, by .ci/nextest.toml, run for what the others do
not notice. A test that never ends is stopped by the processor time it takes, which does not depend
on what else the machine does.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
# Where mutants are planted.
COPY = WORK / "source"
TOOLS = ROOT / "target" / "tools"
CAUGHT_MIN = 0.9
# Tested in one go: what was tested before is kept if this is stopped.
PORTION = 20
# Seconds of processor time for one process, the compiler's or a test's: four times the longest.
CPU_SECONDS_MAX = 120
# The unit tests: they are where the failing and the modelled disks are.
TESTS = ["--config-file", str(ROOT / ".ci" / "nextest.toml"), "--profile"]
# Losses of power in random histories.
POWER_LOSSES = "1500"

ROOMS = {
    "record": ["src/store/record.rs", "src/store/checksum.rs"],
    "manifest": ["src/store/manifest.rs"],
    "recovery": ["src/store/recovery.rs", "src/store/log_end.rs"],
    "compaction": ["src/store/compaction.rs", "src/store/compaction/*.rs"],
    "writer": ["src/store/writer.rs", "src/store/writer/*.rs"],
}


def tool(name: str) -> str:
    """The path of a tool of cargo, installed if it is not there."""
    found = shutil.which(name)
    if found is None:
        subprocess.run([ROOT / ".ci" / "tool", name, name], check=True)
    return found or str(TOOLS / "bin" / name)


def copy_sources() -> None:
    """Makes the copy what the sources are, without touching files that have not changed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    names = {name for name in ran.stdout.split("\0") if name and (ROOT / name).is_file()}
    old = {str(file.relative_to(COPY)) for file in COPY.rglob("*") if file.is_file()}
    for name in old - names:
        (COPY / name).unlink()
    for name in names:
        here, there = ROOT / name, COPY / name
        if name not in old or here.read_bytes() != there.read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here, there)


def environment() -> dict[str, str]:
    """One build directory for all runs, with what it needs from one to the next."""
    return {
        **os.environ,
        "PATH": f"{TOOLS}/bin:{os.environ['PATH']}",
        "CARGO_TARGET_DIR": str(WORK / "build"),
        "CARGO_INCREMENTAL": "1",
        "KVS_POWER_LOSSES": POWER_LOSSES,
    }


def limit_time() -> None:
    """In a process that is about to run tests."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))


def sources() -> str:
    """What the tests that pass are known by: all that they are built from."""
    files = [COPY / "Cargo.lock", COPY / "Cargo.toml", *sorted((COPY / "src").rglob("*.rs"))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


@functools.cache
def check_unchanged(profile: str) -> None:
    """Sees that the tests pass as they are: otherwise every mutant would count as caught."""
    passed = WORK / f"passed-{profile}"
    if passed.exists() and passed.read_text() == sources():
        return
    command = ["cargo", "nextest", "run", "--lib", "--no-default-features", *TESTS, profile]
    ran = subprocess.run(command, cwd=COPY, env=environment(), preexec_fn=limit_time)
    if ran.returncode != 0:
        sys.exit(f"error: the tests of {profile} fail without a mutant")
    passed.write_text(sources())


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


def test(program: str, names: list[str], room: str, profile: str) -> dict[str, str]:
    """Tests the mutants `names`; what became of each."""
    check_unchanged(profile)
    output = WORK / room
    shutil.rmtree(output, ignore_errors=True)
    chosen = [word for file in ROOMS[room] for word in ("--file", file)]
    pattern = "^(" + "|".join(map(re.escape, names)) + ")$"
    command = [program, "mutants", *chosen, "--re", pattern, "--output", str(output)]
    command += ["--in-place", "--baseline", "skip", "--no-shuffle", "--no-default-features"]
    # For building, too: a program of tests that is not libtest's runs when it is asked for a list.
    command += ["--cargo-arg=--lib"]
    # nextest ends what waits for ever before this does.
    command += ["--timeout", "4000", "--test-tool", "nextest", "--", *TESTS, profile]
    subprocess.run(command, cwd=COPY, env=environment(), preexec_fn=limit_time)
    outcomes = {}
    for outcome in ("caught", "missed", "timeout", "unviable"):
        found = output / "mutants.out" / f"{outcome}.txt"
        for name in found.read_text().splitlines() if found.exists() else []:
            outcomes[name] = outcome
    shutil.rmtree(output, ignore_errors=True)
    return outcomes


def test_portion(program: str, names: list[str], room: str) -> None:
    """Tests the mutants `names`, and writes down what became of each."""
    outcomes = test(program, names, room, "mutants")
    missed = [name for name, outcome in outcomes.items() if outcome == "missed"]
    if missed:
        outcomes |= test(program, missed, room, "mutants-long")
    with (WORK / f"{room}.tsv").open("a") as file:
        file.writelines(f"{outcome}\t{name}\n" for name, outcome in outcomes.items())


def main() -> None:
    """Tests what is left to test, and reports on everything that is known."""
    program = tool("cargo-mutants")
    tool("cargo-nextest")
    COPY.mkdir(parents=True, exist_ok=True)
    copy_sources()
    reasons = tomllib.loads((ROOT / ".ci" / "mutants.toml").read_text())
    left = int(os.environ.get("KVS_MUTANTS_MAX", "100000"))
    caught = tested = unexplained = 0
    for room in sys.argv[1:] or ROOMS:
        names = listed(program, ROOMS[room])
        untested = [name for name in names if name not in known(room)][:left]
        for start in range(0, len(untested), PORTION):
            portion = untested[start : start + PORTION]
            test_portion(program, portion, room)
            print(f"{room}: {start + len(portion)} of {len(untested)} tested now", flush=True)
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
