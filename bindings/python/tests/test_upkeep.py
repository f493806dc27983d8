"""Copies, verification, figures, and what the library has to say."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import check_python, in_fork

import kvs
from kvs import _abi, _reports


def test_a_checkpoint_opens_and_holds_what_was_there(store: kvs.Store, tmp_path: Path) -> None:
    store.update({b"%d" % n: bytes(100) for n in range(100)})
    copy = tmp_path / "a cöpy"
    store.checkpoint(copy)
    store[b"later"] = b"x"
    with kvs.open(copy, create=False) as opened:
        assert len(opened) == 100
        assert b"later" not in opened
    with pytest.raises(kvs.StoreExistsError, match="cöpy"):
        store.checkpoint(copy)
    with pytest.raises(ValueError, match="null"):
        store.checkpoint("a\0b")


def test_verify_finds_what_is_damaged(path: Path) -> None:
    # Without a tail, so that every write is in its file.
    with kvs.open(path, write_mode="direct") as store:
        store.update({b"%d" % n: bytes(1000) for n in range(100)})
        report = store.verify()
        assert report.is_sound
        assert (report.damage_count, report.damages, report.live_key_count) == (0, (), 100)

        # Under the open store, as a failing disk would.
        file = max(path.glob("seg-*"), key=lambda file: file.stat().st_size)
        with file.open("r+b") as segment:
            segment.seek(file.stat().st_size // 2)
            segment.write(b"damage")
        report = store.verify()
        assert not report.is_sound
        assert report.unreadable_key_count == 1
        (damage,) = report.damages
        assert damage.path == str(file)
        assert 0 < damage.offset < file.stat().st_size


def test_figures_are_those_of_the_store(store: kvs.Store) -> None:
    store.update({b"%d" % n: b"" for n in range(10)})
    del store[b"0"]
    stats = store.stats()
    assert (stats.key_count, stats.record_count) == (9, 11)
    assert stats.total_bytes == stats.live_bytes + stats.dead_bytes > stats.live_bytes > 0
    assert (stats.is_poisoned, stats.is_reserve_lent, stats.background_error) == (
        False,
        False,
        None,
    )
    assert sum(stats.group_sizes) == stats.group_count > 0
    assert hash(stats) == hash(stats)


def test_every_figure_of_the_library_has_its_name_here(store: kvs.Store) -> None:
    text = store._json(_abi.lib.kvs_stats_json)
    assert set(json.loads(text)) == {field.name for field in dataclasses.fields(kvs.Stats)}
    report = store._json(_abi.lib.kvs_verify_json)
    names = {field.name for field in dataclasses.fields(kvs.VerifyReport)}
    assert set(json.loads(report)) == names


def test_what_a_newer_library_says_beyond_that_is_left_out() -> None:
    figures: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(kvs.Stats)}
    figures["group_sizes"] = (1, 2)
    text = json.dumps({**figures, "invented_later": 2}).encode()
    assert _reports.stats_of(text) == kvs.Stats(**figures)


def test_an_engine_that_cannot_says_so(path: Path) -> None:
    with kvs.open(path, engine="sled") as store:
        for call in (store.stats, store.verify, lambda: store.checkpoint(path / "x")):
            with pytest.raises(kvs.UnsupportedError, match="sled"):
                call()


def provoke_a_line(server: kvs.Server) -> None:
    """Begin as a TLS client would, which the server notices in its log, and wait to be cut off."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01")
        while connection.recv(100):
            pass


def test_lines_of_the_library_arrive_in_logging(path: Path) -> None:
    """In a process of its own, whose exit hands over what is left."""
    out = check_python(
        """
        import logging, sys, time
        import kvs
        sys.path.insert(0, sys.argv[2])
        from test_upkeep import provoke_a_line
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
        # Slow, so that exiting has to wait for it.
        logging.getLogger("kvs").addFilter(lambda record: time.sleep(0.5) or True)
        with kvs.open(sys.argv[1]) as store, store.serve() as server:
            provoke_a_line(server)
        """,
        path,
        Path(__file__).parent,
    )
    assert out.startswith("kvs WARNING a client began with a TLS handshake")
    assert out.count("\n") == 1


def test_without_a_handler_the_library_is_silent(path: Path) -> None:
    out = check_python(
        """
        import sys
        import kvs
        sys.path.insert(0, sys.argv[2])
        from test_upkeep import provoke_a_line
        with kvs.open(sys.argv[1]) as store, store.serve() as server:
            provoke_a_line(server)
        """,
        path,
        Path(__file__).parent,
    )
    assert out == ""


def test_a_handler_may_use_the_store(store: kvs.Store) -> None:
    """Lines are written under locks of the engine, and handed over where there are none."""
    heard: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            store[b"log"] = record.getMessage().encode()
            store.sync()
            heard.append(record.getMessage())

    handler = Keep()
    logging.getLogger("kvs").addHandler(handler)
    try:
        with store.serve() as server:
            provoke_a_line(server)
        for _ in range(1000):
            if heard:
                break
            in_a_moment = socket.socketpair()
            in_a_moment[0].settimeout(0.01)
            with pytest.raises(TimeoutError):
                in_a_moment[0].recv(1)
            for end in in_a_moment:
                end.close()
    finally:
        logging.getLogger("kvs").removeHandler(handler)
    assert "TLS" in heard[0]
    assert b"TLS" in store[b"log"]


def test_new_calls_are_refused_in_a_fork_and_on_a_closed_store(store: kvs.Store) -> None:
    store[b"k"] = b"v"
    batch, scan = store.batch(), store.scan()
    batch[b"k"] = b"w"
    calls = (
        lambda: store.get_many([b"k"]),
        lambda: store.swap(b"k", b"w"),
        lambda: store.compare_and_swap(b"k", b"v", b"w"),
        store.scan,
        lambda: next(scan),
        batch.write,
        lambda: store.checkpoint("nowhere"),
        store.verify,
        store.stats,
        store.clear,
        store.refresh,
        lambda: store.set(b"k", b"w", ttl=1),
        lambda: store.expiry(b"k"),
        lambda: store.persist(b"k"),
    )

    def refusals(kind: type[kvs.Error]) -> int:
        count = 0
        for call in calls:
            try:
                call()
            except kind:
                count += 1
        return count

    def child() -> str:
        count = refusals(kvs.ForkedError)
        store.close()
        return str(count)

    assert in_fork(child) == str(len(calls))
    assert store[b"k"] == b"v"
    store.close()
    assert refusals(kvs.ClosedError) == len(calls)
