"""Stores that are open for reading only, beside the one that writes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import check_python

import kvs


def test_a_view_shows_one_moment_until_it_is_refreshed(store: kvs.Store, path: Path) -> None:
    store.update({b"a": b"1", b"b": b"2"})
    with kvs.open(path, read_only=True) as view:
        assert view.read_only
        assert not store.read_only
        store[b"c"] = b"3"
        del store[b"a"]
        begun = view.scan()
        assert dict(view) == {b"a": b"1", b"b": b"2"}
        view.refresh()
        assert dict(view) == {b"b": b"2", b"c": b"3"}
        assert dict(begun) == {b"a": b"1", b"b": b"2"}
    with pytest.raises(kvs.ClosedError):
        view.refresh()
    store.refresh()
    assert len(store) == 2


def test_a_view_refuses_every_write(store: kvs.Store, path: Path) -> None:
    store[b"k"] = b"v"
    with kvs.open(path, read_only=True) as view:
        batch = view.batch()
        batch[b"k"] = b"w"
        for call in (
            lambda: view.update({b"k": b"w"}),
            lambda: view.set(b"k", b"w", ttl=1),
            lambda: view.persist(b"k") or view.set_expiry(b"k", ttl=1),
            lambda: view.pop(b"k"),
            lambda: view.discard(b"k"),
            view.clear,
            batch.write,
        ):
            with pytest.raises(kvs.ReadOnlyError, match="reading only") as caught:
                call()
            assert isinstance(caught.value, PermissionError)
            assert caught.value.path == str(path)
        assert dict(view) == {b"k": b"v"}


def test_another_process_looks_in(store: kvs.Store, path: Path) -> None:
    store[b"k"] = b"v"
    out = check_python(
        """
        import sys, kvs
        with kvs.open(sys.argv[1], read_only=True) as view:
            print(view[b"k"].decode())
        """,
        path,
    )
    assert out == "v\n"


def test_refreshes_from_many_threads_never_go_back(store: kvs.Store, path: Path) -> None:
    store[b"n"] = b"0"
    written, failures = [0], []
    over = threading.Event()

    def watch(view: kvs.Store) -> None:
        while not over.is_set():
            before = written[0]
            view.refresh()
            if int(view[b"n"]) < before:
                failures.append(before)

    with kvs.open(path, read_only=True) as view:
        threads = [threading.Thread(target=watch, args=(view,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(1, 1000):
            store[b"n"] = b"%d" % n
            written[0] = n
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_view_needs_a_store_and_an_engine_that_can(path: Path) -> None:
    with pytest.raises(kvs.StoreNotFoundError):
        kvs.open(path, read_only=True)
    with pytest.raises(kvs.UnsupportedError, match="reading only"):
        kvs.open(path, read_only=True, engine="sled")
    assert not path.exists()
