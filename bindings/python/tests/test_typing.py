"""What type checkers infer. mypy reads this file; it is also run, so that it tells the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kvs

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, _: Any) -> Any:
        return value


def test_results_have_the_types_that_are_promised(path: Path) -> None:
    with kvs.open(path) as store:
        assert_type(store, kvs.Store)
        assert_type(store.path, str)
        assert_type(store.closed, bool)
        store[b"k"] = b"v"
        assert_type(store[b"k"], bytes)
        assert_type(store.get(b"k"), "bytes | None")
        assert_type(store.get(b"k", b""), bytes)
        assert_type(store.get(b"k", 7), "bytes | int")
        assert_type(store.get(b"k", None), "bytes | None")
        assert_type(b"k" in store, bool)
        assert_type(store.discard(b"k"), bool)
        assert_type(len(store), int)
        assert_type(store.get_many([b"k"]), "list[bytes | None]")
        assert_type(store.swap(b"k", None), "bytes | None")
        assert_type(store.compare_and_swap(b"k", None, b"v"), bool)
        assert_type(store.setdefault(b"k", b"v"), bytes)
        assert_type(store.pop(b"k"), bytes)
        assert_type(store.pop(b"k", None), "bytes | None")
        assert_type(store.scan(), "kvs.Scan[tuple[bytes, bytes]]")
        assert_type(store.scan(keys_only=True), "kvs.Scan[bytes]")
        assert_type(next(iter(store), None), "bytes | None")
        assert_type(list(store.items()), "list[tuple[bytes, bytes]]")
        assert_type(list(store.values()), "list[bytes]")
        with store.batch() as batch:
            assert_type(batch, kvs.Batch)
        assert_type(store.stats(), kvs.Stats)
        assert_type(store.verify(), kvs.VerifyReport)
        assert_type(store.verify().damages, "tuple[kvs.Damage, ...]")
        with store.serve() as server:
            assert_type(server, kvs.Server)
            assert_type(server.address, str)
            assert_type(server.port, int)
            assert_type(server.store, kvs.Store)
            assert_type(server.wait(0), bool)


def test_every_bytes_like_type_checks(store: kvs.Store) -> None:
    store[bytearray(b"k")] = memoryview(b"v")
    store[memoryview(b"k")] = bytearray(b"v")
    assert store.get(memoryview(b"k")) == store[bytearray(b"k")]
    store.discard(bytearray(b"k"))


def test_what_is_wrong_is_found_by_the_checker_too(store: kvs.Store) -> None:
    """Each `type: ignore` is needed, or mypy complains of it."""
    with pytest.raises(TypeError):
        store["k"] = b"v"  # type: ignore[index]
    with pytest.raises(TypeError):
        store[b"k"] = "v"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        store[0]  # type: ignore[index]
    with pytest.raises(TypeError):
        store.get("k")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        store.scan("a")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        store.setdefault(b"k")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="sync"):
        kvs.open("unused", sync="sometimes")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        store.path = "other"  # type: ignore[misc]


def test_errors_have_typed_attributes(store: kvs.Store) -> None:
    with pytest.raises(kvs.TooLargeError) as caught:
        store[bytes(kvs.KEY_LEN_MAX + 1)] = b""
    assert_type(caught.value.code, int)
    assert_type(caught.value.name, str)
    assert_type(caught.value.message, str)
    assert_type(caught.value.path, "str | None")
    assert_type(caught.value.os_errno, "int | None")
