"""Mutation tests of the rooms that hold the data: is every change of their code noticed?

mutants.py [ROOM...]   record manifest recovery compaction writer; all of them if none is named

For each room it lists the mutants of cargo-mutants, and tests those that no earlier run has tested:
what is known is kept in target/mutants/ROOM.tsv, so a run that was stopped goes on. KVS_MUTANTS_MAX
bounds how many of each room are tested now: a sample that is spread over the room, always the same
one. A mutant that is missed is expected if .ci/mutants.toml lists it with a reason. Fails if fewer
than 90 % of those tested are caught.

What makes a mutant cheap: they are planted in copies of the sources, at places that stay, so the
compiler goes on from what it knows, and as many at once as there are processors; the second engine
and the programs are left out; the tests end with the first that fails, and those that take long, by
.ci/nextest.toml, run for what the others do not notice. A test that never ends is ended for the
processor time it takes, or when it is seen asleep again and again: neither depends on what else the
machine does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
# Where mutants are planted, one at a time in each; all are alike.
COPIES = [WORK / f"copy-{index}" for index in range(os.cpu_count() or 1)]
TOOLS = ROOT / "target" / "tools"
CAUGHT_MIN = 0.9
# Tested in one go: what was tested before is kept if this is stopped.
PORTION = 12
# By the profile of .ci/nextest.toml, one after the other for what the one before does not notice:
# which tests, and seconds of processor time for one of them, four times what the longest takes. The
# unit tests come first: they are where the failing and the modelled disks are.
STAGES = {
    "mutants": ("--lib", 20),
    "mutants-outside": ("--test=it", 60),
    "mutants-long": ("--lib", 160),
}
# A test that is asleep so often when it is looked at, once a second, waits for ever.
ASLEEP_MAX = 25
# What is written down of a mutant that one stage misses, until the last one has run.
UNNOTICED = "unnoticed"
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


def copy_sources(copy: Path) -> None:
    """Makes the copy what the sources are, without touching files that have not changed."""
    source = copy / "source"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    names = {name for name in ran.stdout.split("\0") if name and (ROOT / name).is_file()}
    old = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    for name in old - names:
        (source / name).unlink()
    for name in names:
        here, there = ROOT / name, source / name
        if name not in old or here.read_bytes() != there.read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here, there)


def copy_build(copy: Path) -> None:
    """Spares a new copy the building of what kvs depends on."""
    if not (copy / "build").exists():
        shutil.copytree(COPIES[0] / "build", copy / "build", symlinks=True)
        # The sources' place is in what was built of them.
        (copy / "source" / "src" / "lib.rs").touch()


def environment(copy: Path) -> dict[str, str]:
    """One build directory for all runs in a copy, with what it needs from one to the next."""
    return {
        **os.environ,
        "PATH": f"{TOOLS}/bin:{os.environ['PATH']}",
        "CARGO_TARGET_DIR": str(copy / "build"),
        "CARGO_INCREMENTAL": "1",
        "KVS_POWER_LOSSES": POWER_LOSSES,
    }


def end_the_endless(profile: str, is_done: threading.Event) -> None:
    """Ends tests that take too long, or wait for what does not come, until all is done."""
    asleep: dict[str, int] = {}
    while not is_done.wait(1):
        looks = {}
        for pid, states, cpu_seconds in running_tests():
            # One that is stopped, or waits for a processor or a disk, is not asleep.
            looks[pid] = max(0, asleep.get(pid, 0) + (1 if states == {"S"} else -3))
            if looks[pid] >= ASLEEP_MAX or cpu_seconds > STAGES[profile][1]:
                os.kill(int(pid), signal.SIGKILL)
        asleep = looks


def running_tests() -> Iterator[tuple[str, set[str], float]]:
    """Each test that runs: its process, the states of its threads, its processor time."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program = (process / "exe").readlink()
            if "deps" in program.parts and any(map(program.is_relative_to, COPIES)):
                fields = [fields_of(task) for task in process.glob("task/*/stat")]
                ticks = sum(map(int, fields_of(process / "stat")[11:13]))
                seconds = ticks / os.sysconf("SC_CLK_TCK")
                yield process.name, {task[0] for task in fields}, seconds
        except OSError:
            # It has ended meanwhile, or is somebody else's.
            continue


def fields_of(stat: Path) -> list[str]:
    """What `stat` says behind the name of the program."""
    return stat.read_text().rpartition(")")[2].split()


def sources() -> str:
    """What the tests that pass are known by: all that they are built from."""
    files = [ROOT / "Cargo.lock", ROOT / "Cargo.toml", *sorted((ROOT / "src").rglob("*.rs"))]
    files += sorted((ROOT / "tests").rglob("*.rs"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def check_unchanged(profile: str) -> None:
    """Sees that the tests pass as they are: otherwise every mutant would count as caught."""
    passed = WORK / f"passed-{profile}"
    if passed.exists() and passed.read_text() == sources():
        return
    which = STAGES[profile][0]
    command = ["cargo", "nextest", "run", which, "--no-default-features", *TESTS, profile]
    copy = COPIES[0]
    if subprocess.run(command, cwd=copy / "source", env=environment(copy)).returncode != 0:
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


def spread(name: str) -> bytes:
    """By this mutants are sorted, so that whatever comes first is a fair sample."""
    return hashlib.sha256(place(name).encode()).digest()


def test(program: str, names: list[str], copy: Path, profile: str) -> dict[str, str]:
    """Tests the mutants `names`; what became of each."""
    output = copy / "output"
    shutil.rmtree(output, ignore_errors=True)
    files = sorted({name.partition(":")[0] for name in names})
    chosen = [word for file in files for word in ("--file", file)]
    pattern = "^(" + "|".join(map(re.escape, names)) + ")$"
    command = [program, "mutants", *chosen, "--re", pattern, "--output", str(output)]
    command += ["--in-place", "--baseline", "skip", "--no-shuffle", "--no-default-features"]
    # For building, too: a program of tests that is not libtest's runs when it is asked for a list.
    command += [f"--cargo-arg={STAGES[profile][0]}"]
    # nextest ends what waits for ever before this does.
    command += ["--timeout", "4000", "--test-tool", "nextest", "--", *TESTS, profile]
    subprocess.run(command, cwd=copy / "source", env=environment(copy))
    outcomes = {}
    for outcome in ("caught", "missed", "timeout", "unviable"):
        found = output / "mutants.out" / f"{outcome}.txt"
        for name in found.read_text().splitlines() if found.exists() else []:
            outcomes[name] = outcome
    shutil.rmtree(output, ignore_errors=True)
    # cargo-mutants 27 also tests each field that can be left out, whatever it is told to choose.
    return {name: outcomes[name] for name in names if name in outcomes}


def test_portion(
    program: str, names: list[str], room: str, copies: Queue[Path], profile: str
) -> None:
    """Tests the mutants `names`, and writes down what became of each."""
    copy = copies.get()
    outcomes = test(program, names, copy, profile)
    copies.put(copy)
    with (WORK / f"{room}.tsv").open("a") as file:
        for name, outcome in outcomes.items():
            goes_on = outcome == "missed" and profile != list(STAGES)[-1]
            file.write(f"{UNNOTICED if goes_on else outcome}\t{name}\n")
    print(f"{room}: {len(outcomes)} tested", flush=True)


def test_all(program: str, chosen: dict[str, list[str]], profile: str) -> None:
    """Tests the mutants that are chosen of all rooms, by turns, in all copies at once."""
    if not any(chosen.values()):
        return
    check_unchanged(profile)
    copies: Queue[Path] = Queue()
    for copy in COPIES:
        copy_build(copy)
        copies.put(copy)
    is_done = threading.Event()
    threading.Thread(target=end_the_endless, args=(profile, is_done)).start()
    with ThreadPoolExecutor(len(COPIES)) as threads:
        portions = [
            threads.submit(
                test_portion, program, names[start : start + PORTION], room, copies, profile
            )
            for start in range(0, max(map(len, chosen.values())), PORTION)
            for room, names in chosen.items()
            if start < len(names)
        ]
    is_done.set()
    for portion in portions:
        portion.result()


def place(name: str) -> str:
    """What a mutant is called in .ci/mutants.toml: lines move, what is after them does not."""
    return re.sub(r":\d+:\d+:", ":", name)


def main() -> None:
    """Tests what is left to test, and reports on everything that is known."""
    program = tool("cargo-mutants")
    tool("cargo-nextest")
    reasons = tomllib.loads((ROOT / ".ci" / "mutants.toml").read_text())
    bound = int(os.environ.get("KVS_MUTANTS_MAX", "100000"))
    rooms = {room: listed(program, ROOMS[room]) for room in sys.argv[1:] or ROOMS}
    for copy in COPIES:
        copy_sources(copy)
    untested = {
        room: sorted(set(names) - known(room).keys(), key=spread)[:bound]
        for room, names in rooms.items()
    }
    first, *later = STAGES
    test_all(program, untested, first)
    for profile in later:
        # What is expected to be missed need not be looked at for long.
        left = {
            room: [name for name in names if known(room).get(name) == UNNOTICED]
            for room, names in rooms.items()
        }
        unnoticed = {
            room: [name for name in names if place(name) not in reasons]
            for room, names in left.items()
        }
        test_all(program, unnoticed, profile)
    caught = tested = unexplained = 0
    for room, names in rooms.items():
        outcomes = {name: outcome for name, outcome in known(room).items() if name in names}
        missed = [name for name in outcomes if outcomes[name] in ("missed", UNNOTICED)]
        counted = [outcome for outcome in outcomes.values() if outcome != "unviable"]
        caught += len(counted) - len(missed)
        tested += len(counted)
        print(f"{room}: {len(names)} mutants, {len(counted)} tested, {len(missed)} missed")
        for name in missed:
            unexplained += place(name) not in reasons
            print(f"  {name}\n    {reasons.get(place(name), 'NO REASON IS GIVEN')}")
    ratio = caught / tested if tested else 0
    failed = int(ratio < CAUGHT_MIN) + unexplained
    print(
        f"soak-mutants: {tested} mutants, {caught} caught ({ratio:.1%}), "
        f"{unexplained} missed without a reason; failures: {failed}"
    )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
