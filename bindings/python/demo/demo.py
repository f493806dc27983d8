"""Shows kvs at work: two hosts with a store each, and a client in another process.

python3 demo.py [--c-host FILE] [--client FILE] [--directory DIRECTORY]

Each host loads the names of all Unicode characters and serves its open store. While it is up,
kvs-client reads a name, sets a key, reads it, removes it, and asks for a key that is not there. Any
answer that is not as expected ends the demo with status 1. It can be run again and again.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[2] / "target"

# Seconds that a host may take to load and listen, to stop, and a client to answer.
LISTEN_SECONDS_MAX = 120
STOP_SECONDS_MAX = 30
ANSWER_SECONDS_MAX = 10

# What the client is asked, and what it must answer: standard output, and whether all went well.
# A get of an absent key is an answer, removing one is a failure.
CONVERSATION = [
    (["get", "1F980"], "CRAB", True),
    (["set", "greeting", "hello from another process"], "", True),
    (["get", "greeting"], "hello from another process", True),
    (["rm", "greeting"], "", True),
    (["get", "greeting"], "Key not found", True),
    (["rm", "greeting"], "", False),
    (["get", "110000"], "Key not found", True),
]


class DemoError(Exception):
    """Something was not as expected."""


def main() -> None:
    """Run both hosts, one after the other."""
    parser = argparse.ArgumentParser(description="Show kvs at work.")
    for option, default, what in (
        ("--c-host", TARGET / "ffi-tests" / "host", "the program of ffi-tests/demo"),
        ("--client", TARGET / "release" / "kvs-client", "kvs-client"),
        ("--directory", TARGET / "demo", "where to keep everything"),
    ):
        parser.add_argument(option, type=Path, default=default, help=f"{what} [{default}]")
    arguments = parser.parse_args()

    names = arguments.directory / "unicode.tsv"
    hosts = {
        "C": [str(arguments.c_host)],
        "Python": [sys.executable, str(HERE / "host.py")],
    }
    try:
        for program in (arguments.c_host, arguments.client):
            if not program.is_file():
                raise DemoError(f"{program} is not built")
        title("The names of all Unicode characters")
        subprocess.run([sys.executable, str(HERE / "make_unicode_tsv.py"), str(names)], check=True)
        for language, command in hosts.items():
            title(f"A {language} program with a store inside")
            directory = arguments.directory / f"store-{language.lower()}"
            with running(command, names, directory) as port:
                talk(arguments.client, port)
    except (DemoError, subprocess.SubprocessError, OSError) as error:
        print(f"\nDEMO FAILED: {error}", file=sys.stderr)
        sys.exit(1)
    title("Every answer was as expected")


def title(text: str) -> None:
    """Announce a part."""
    print(f"\n== {text}", flush=True)


@contextlib.contextmanager
def running(command: list[str], names: Path, directory: Path) -> Iterator[int]:
    """Run a host, lend the port that it listens on, and stop it by ending its input."""
    port_file = directory.with_suffix(".port")
    port_file.unlink(missing_ok=True)
    arguments = ["--port-file", str(port_file), str(names), str(directory)]
    print("$", *command, *arguments, flush=True)
    host = subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE)
    try:
        yield wait_for_port(host, port_file)
        host.communicate(timeout=STOP_SECONDS_MAX)
        if host.returncode != 0:
            raise DemoError(f"the host ended with status {host.returncode}")
    finally:
        # Gone already, unless something above failed.
        if host.poll() is None:
            host.kill()
            host.wait()
        port_file.unlink(missing_ok=True)


def wait_for_port(host: subprocess.Popen[bytes], port_file: Path) -> int:
    """Return the port that the host writes when it listens."""
    deadline = time.monotonic() + LISTEN_SECONDS_MAX
    while not port_file.is_file():
        if host.poll() is not None:
            raise DemoError(f"the host ended with status {host.returncode} before it listened")
        if time.monotonic() > deadline:
            raise DemoError(f"the host does not listen after {LISTEN_SECONDS_MAX} seconds")
        time.sleep(0.02)
    return int(port_file.read_text(encoding="ascii"))


def talk(client: Path, port: int) -> None:
    """Have the conversation with the server on ``port``, and show it."""
    for words, expected, well in CONVERSATION:
        command = [str(client), *words, "--addr", f"127.0.0.1:{port}"]
        print("$", client.name, *words, flush=True)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS_MAX, check=False
        )
        answer, complaint = done.stdout.strip(), done.stderr.strip()
        for line in (answer, complaint):
            if line:
                print(f"  {line}", flush=True)
        if answer != expected or (done.returncode == 0) != well:
            raise DemoError(
                f"{' '.join(words)}: answered {answer!r} with status {done.returncode}, not "
                f"{expected!r} with {'0' if well else 'another than 0'}"
            )


if __name__ == "__main__":
    main()
