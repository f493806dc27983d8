"""Threads, forks, collection and exit: nothing crashes, hangs, leaks or is lost."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from conftest import check_python, in_fork

import kvs
from kvs import _abi


def test_threads_share_a_store(store: kvs.Store) -> None:
    def work(name: int) -> None:
        for number in range(500):
            key = b"%d/%d" % (name, number)
            store[key] = key * (number % 50)
            assert store[key] == key * (number % 50)
            if number % 3 == 0:
                del store[key]

    check_all(threads(partial(work, name) for name in range(8)))
    assert len(store) == 8 * (500 - 167)


@pytest.mark.parametrize("turn", range(20))
def test_closing_while_threads_are_inside_is_an_error_for_them_and_no_crash(
    path: Path, turn: int
) -> None:
    store = kvs.open(path)
    store[b"k"] = bytes(100)
    begun = threading.Barrier(5)

    def use(call: Callable[[], object]) -> None:
        begun.wait()
        with pytest.raises(kvs.ClosedError):
            while True:
                call()

    running = threads(
        partial(use, call)
        for call in (
            lambda: store[b"k"],
            lambda: store.__setitem__(b"k", bytes(turn)),
            lambda: store.discard(b"other"),
            store.compact,
        )
    )
    begun.wait()
    time.sleep(0.001 * (turn % 5))
    store.close()
    check_all(running)


class Thread(threading.Thread):
    """A thread that keeps what it failed with."""

    def __init__(self, body: Callable[[], object]) -> None:
        super().__init__()
        self.body = body
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.body()
        except BaseException as error:  # noqa: BLE001  raised again by `check_all`
            self.failure = error


def threads(bodies: Iterable[Callable[[], object]]) -> list[Thread]:
    started = [Thread(body) for body in bodies]
    for thread in started:
        thread.start()
    return started


def check_all(running: list[Thread]) -> None:
    for thread in running:
        thread.join(60)
        assert not thread.is_alive()
    for thread in running:
        if thread.failure:
            raise thread.failure


def test_the_interpreter_goes_on_while_a_call_waits(store: kvs.Store) -> None:
    with store.serve() as server:
        waiting = Thread(partial(_abi.lib.kvs_server_wait, server._handle.pointer, 500))
        waiting.start()
        turns = 0
        while waiting.is_alive():
            time.sleep(0.01)
            turns += 1
    # One at most, if the call kept the interpreter; a busy machine leaves few of fifty.
    assert turns > 3


def test_a_signal_handler_may_read_while_a_read_is_interrupted(store: kvs.Store) -> None:
    """A handler runs between the filling of the reused memory and the copy out of it."""
    long, short = b"L" * 4000, b"S" * 4000
    store[b"long"], store[b"short"] = long, short
    calls = 0

    def handler(*_: object) -> None:
        nonlocal calls
        calls += 1
        assert store[b"short"] == short

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        while calls < 2000:
            assert store[b"long"] == long
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_store_that_is_collected_open_is_freed_with_a_warning(path: Path) -> None:
    store = kvs.open(path)
    store[b"k"] = b"v"
    with pytest.warns(ResourceWarning, match=f"unclosed store '{path}'"):
        del store
        gc.collect()
    with kvs.open(path) as store:
        assert store[b"k"] == b"v"


def test_a_server_that_is_collected_running_stops_with_a_warning(store: kvs.Store) -> None:
    server = store.serve()
    address = server.address
    with pytest.warns(ResourceWarning, match=f"unclosed server '{address}'"):
        del server
        gc.collect()
    store.serve(address).stop()


def test_what_is_closed_is_collected_without_a_warning(path: Path) -> None:
    with kvs.open(path) as store, store.serve():
        pass
    del store
    gc.collect()


def test_a_server_keeps_its_store_alive(path: Path) -> None:
    server = kvs.open(path).serve()
    gc.collect()
    server.store[b"k"] = b"v"
    server.stop()
    assert server.store[b"k"] == b"v"
    server.store.close()


def held() -> tuple[int, int]:
    """Return how many files are open and how many threads there are."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def check_held_at_most(before: tuple[int, int]) -> None:
    """Wait for the counts to come down: a thread that was joined is listed for a moment longer."""
    deadline = time.monotonic() + 20
    while any(now > then for now, then in zip(held(), before, strict=True)):
        assert time.monotonic() < deadline, (held(), before)
        time.sleep(0.001)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="counts the entries of /proc")
def test_opening_and_closing_leaves_nothing_behind(path: Path) -> None:
    def turn() -> None:
        with kvs.open(path) as store, store.serve():
            store[b"k"] = bytes(1 << 21)
            assert len(store[b"k"]) == 1 << 21

    for _ in range(10):
        turn()
    before = held()
    resident_before = resident_bytes()
    for _ in range(40):
        turn()
    check_held_at_most(before)
    # What each turn reads is 2 MiB: a buffer that is not freed would show as 80.
    assert resident_bytes() - resident_before < 20 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_calls_that_are_refused_leave_nothing_behind(store: kvs.Store, path: Path) -> None:
    def turn() -> None:
        with pytest.raises(kvs.LockedError):
            kvs.open(path, engine="kvs")
        with pytest.raises(kvs.InvalidArgumentError):
            store.serve(threads=100_000, pool="rayon")

    for _ in range(1000):
        turn()
    before = held()
    resident_before = resident_bytes()
    for _ in range(5000):
        turn()
    check_held_at_most(before)
    # A set of options has some 200 bytes, so 10,000 of them would show as 2 MB.
    assert resident_bytes() - resident_before < 1 << 20


def test_the_child_of_a_fork_is_refused_and_the_parent_goes_on(store: kvs.Store) -> None:
    store[b"k"] = b"v"
    server = store.serve()

    def child() -> str:
        refused = 0
        for call in (
            lambda: store[b"k"],
            lambda: b"k" in store,
            lambda: store.discard(b"k"),
            lambda: store.__setitem__(b"k", b"w"),
            lambda: len(store),
            store.sync,
            store.compact,
            store.serve,
            lambda: server.wait(0.1),
        ):
            try:
                call()
            except kvs.ForkedError as error:
                words = (str(os.getppid()), str(os.getpid()), "spawn")
                refused += all(word in str(error) for word in words)
        server.stop()
        store.close()
        return f"{refused} refused"

    assert in_fork(child) == "9 refused"
    store[b"k"] = b"later"
    assert (store[b"k"], server.wait(0)) == (b"later", False)
    server.stop()


def test_a_child_that_exits_in_the_middle_of_a_block_does_no_harm(path: Path) -> None:
    """Its interpreter leaves the block, collects and exits, all with the parent's store."""
    out = check_python(
        """
        import os, sys, warnings
        import kvs
        warnings.simplefilter("ignore", DeprecationWarning)
        with kvs.open(sys.argv[1]) as store, store.serve() as server:
            store[b"k"] = b"before"
            pid = os.fork()
            if pid == 0:
                sys.exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            store[b"k"] = b"after"
            print(store[b"k"].decode())
        """,
        path,
    )
    assert out.splitlines() == ["7", "after"]
    with kvs.open(path) as store:
        assert store[b"k"] == b"after"


def test_a_store_is_not_passed_to_another_process(store: kvs.Store) -> None:
    context = multiprocessing.get_context("spawn")
    with pytest.raises(TypeError, match="pass its path"):
        context.Process(target=len, args=(store,)).start()


def test_an_interpreter_that_exits_closes_what_is_open_in_silence(path: Path) -> None:
    out = check_python(
        """
        import atexit, sys
        # Registered first, so it runs last.
        atexit.register(lambda: print(store.closed, server.wait(0)))
        import kvs
        store = kvs.open(sys.argv[1])
        server = store.serve()
        for number in range(1000):
            store[b"%d" % number] = bytes(number)
        """,
        path,
    )
    assert out == "True True\n"
    with kvs.open(path) as store:
        assert (len(store), store[b"999"]) == (1000, bytes(999))


def test_an_interpreter_may_exit_while_a_thread_is_inside(path: Path) -> None:
    check_python(
        """
        import sys, threading
        import kvs
        store = kvs.open(sys.argv[1])
        server = store.serve()
        begun = threading.Event()

        def use():
            while True:
                try:
                    store[b"k"] = bytes(1000)
                    store[b"k"]
                    server.wait(0)
                except kvs.ClosedError:
                    pass
                begun.set()

        for _ in range(4):
            threading.Thread(target=use, daemon=True).start()
        begun.wait()
        """,
        path,
    )
    with kvs.open(path) as store:
        assert store[b"k"] == bytes(1000)
