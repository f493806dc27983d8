"""A store is a dictionary of bytes that stays on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import kvs


def test_a_key_has_the_value_that_was_set_last(store: kvs.Store) -> None:
    store[b"no"] = b"Bergen"
    store[b"no"] = b"Oslo"
    assert store[b"no"] == b"Oslo"
    assert store.get(b"no") == b"Oslo"
    assert b"no" in store
    assert len(store) == 1


def test_an_absent_key_is_absent_in_every_way_of_asking(store: kvs.Store) -> None:
    store[b"other"] = b""
    assert store.get(b"k") is None
    assert store.get(b"k", b"default") == b"default"
    assert store.get(b"k", 7) == 7
    assert b"k" not in store
    assert not store.discard(b"k")
    with pytest.raises(KeyError) as got:
        store[b"k"]
    assert got.value.args == (b"k",)
    with pytest.raises(KeyError) as deleted:
        del store[b"k"]
    assert deleted.value.args == (b"k",)
    assert len(store) == 1


def test_a_removed_key_is_gone_and_can_come_back(store: kvs.Store) -> None:
    store[b"a"] = b"1"
    store[b"b"] = b"2"
    del store[b"a"]
    assert store.discard(b"b")
    assert (b"a" in store, b"b" in store, len(store), bool(store)) == (False, False, 0, False)
    store[b"a"] = b"3"
    assert (store[b"a"], len(store), bool(store)) == (b"3", 1, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", b"value of the empty key"),
        (b"empty value", b""),
        (b"zero\0byte", b"\0a\0\0"),
        (bytes(range(256)), bytes(reversed(range(256)))),
        (b"\xff" * 100, b"not \xff text"),
    ],
    ids=["empty key", "empty value", "zero bytes", "all bytes", "not UTF-8"],
)
def test_any_bytes_are_keys_and_values(path: Path, key: bytes, value: bytes) -> None:
    with kvs.open(path) as store:
        store[key] = value
        assert (store[key], store.get(key), key in store) == (value, value, True)
    with kvs.open(path) as store:
        assert (store[key], len(store)) == (value, 1)
        del store[key]
        assert key not in store


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_keys_and_values_are_taken_from_any_bytes_like(store: kvs.Store, make: Any) -> None:
    store[make(b"key")] = make(b"value")
    assert type(store[b"key"]) is bytes
    assert store[make(b"key")] == store.get(make(b"key")) == b"value"
    assert make(b"key") in store
    assert store.discard(make(b"key"))
    store[make(b"key")] = b""
    del store[make(b"key")]


def test_a_strided_memoryview_is_taken_as_its_bytes(store: kvs.Store) -> None:
    store[memoryview(b"k.e.y")[::2]] = memoryview(b"value")[::-1]
    assert store[b"key"] == b"eulav"


def test_a_subclass_of_bytes_is_bytes(store: kvs.Store) -> None:
    class Name(bytes):
        pass

    store[Name(b"k")] = Name(b"v")
    assert (store[Name(b"k")], type(store[b"k"])) == (b"v", bytes)


@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2], 1.5])
def test_what_is_not_bytes_like_is_a_type_error(store: kvs.Store, wrong: Any) -> None:
    """Strings most of all: `"k" in store` must not be False for every k."""
    hint = r"use \.encode\(\)" if isinstance(wrong, str) else type(wrong).__name__
    for call in (
        lambda: store[wrong],
        lambda: store.get(wrong),
        lambda: wrong in store,
        lambda: store.discard(wrong),
        lambda: store.__delitem__(wrong),
        lambda: store.__setitem__(wrong, b"v"),
        lambda: store.__setitem__(b"k", wrong),
    ):
        with pytest.raises(TypeError, match=hint):
            call()
    assert len(store) == 0


# Around the first size of the reused memory, its largest size, and what is lent instead.
LENGTHS = [0, 1, 4095, 4096, 4097, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000]


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1]], ids=["growing", "shrinking"])
def test_values_of_every_length_come_back_whole(store: kvs.Store, lengths: list[int]) -> None:
    values = {b"%d" % length: os.urandom(length) for length in lengths}
    for key, value in values.items():
        store[key] = value
    for key, value in values.items():
        assert store[key] == value
        assert store.get(key) == value


def test_values_read_earlier_do_not_change(store: kvs.Store) -> None:
    """Reads share memory inside; what they return must not."""
    store[b"a"], store[b"b"] = b"first", b"other"
    first = store[b"a"]
    assert store[b"b"] == b"other"
    store[b"a"] = b"later"
    assert first == b"first"


def test_the_longest_key_is_taken_and_a_longer_one_refused(store: kvs.Store) -> None:
    store[b"k" * kvs.KEY_LEN_MAX] = b"v"
    assert store[b"k" * kvs.KEY_LEN_MAX] == b"v"
    too_long = b"k" * (kvs.KEY_LEN_MAX + 1)
    with pytest.raises(kvs.TooLargeError, match=r"65536 bytes .* 65535"):
        store[too_long] = b"v"
    # It cannot be there, which is an answer and no failure.
    assert (store.get(too_long), too_long in store, len(store)) == (None, False, 1)


def test_a_value_over_the_limit_is_refused(store: kvs.Store) -> None:
    with pytest.raises(kvs.TooLargeError, match=str(kvs.VALUE_LEN_MAX)):
        store[b"k"] = bytes(kvs.VALUE_LEN_MAX + 1)
    assert b"k" not in store


def test_what_was_set_is_there_after_reopening(path: Path) -> None:
    records = {b"%d" % number: b"v%d" % number for number in range(1000)}
    with kvs.open(path) as store:
        for key, value in records.items():
            store[key] = value
        del store[b"7"]
    with kvs.open(path) as store:
        assert len(store) == 999
        assert {key: store.get(key) for key in records} == {**records, b"7": None}


def test_sync_and_compact_keep_what_is_there(store: kvs.Store) -> None:
    for turn in range(10):
        for number in range(200):
            store[b"%d" % number] = b"%d" % (turn * number)
    store.sync()
    store.compact()
    assert (len(store), store[b"199"]) == (200, b"1791")


def test_path_and_repr_say_which_store_it_is(path: Path) -> None:
    with kvs.open(path) as store:
        assert store.path == str(path)
        assert repr(store) == f"<kvs.Store {str(path)!r}, open>"
        assert not store.closed
    assert store.closed
    assert repr(store) == f"<kvs.Store {str(path)!r}, closed>"


@pytest.mark.parametrize("name", ["plain", "with space", "Übergrößenträger-日本-🦀"])
def test_a_path_is_given_as_text_bytes_or_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for given in (path, str(path), os.fsencode(path)):
        with kvs.open(given) as store:
            store[b"k"] = b"v"
            assert store.path == str(path)
    assert any(path.iterdir())


def test_parents_of_the_directory_are_made(tmp_path: Path) -> None:
    with kvs.open(tmp_path / "a" / "b" / "c") as store:
        store[b"k"] = b"v"


def test_without_a_tail_there_is_none(path: Path) -> None:
    for write_mode in "tail", "direct", "tail":
        with kvs.open(path, write_mode=write_mode) as store:
            store[b"k"] = write_mode.encode()
            assert not (write_mode == "direct" and store.stats().has_tail)
    with kvs.open(path, write_mode="direct") as store:
        assert store[b"k"] == b"tail"


@pytest.mark.parametrize(
    "options",
    [
        {"sync": "os"},
        {"sync": "always"},
        {"sync": 0.05},
        {"sync": 1},
        {"engine": "kvs"},
        {"read_mode": "positioned"},
        {"read_mode": "mapped"},
        {"write_mode": "tail"},
        {"write_mode": "direct"},
        {"lock_timeout": 1.5},
        {"segment_bytes_min": 4096, "segment_bytes_max": 8192},
        {"auto_compaction": False},
        {"compaction_bytes_per_second_max": 1 << 40},
        {"create": True, "exclusive": True},
    ],
    ids=str,
)
def test_every_option_opens_a_store_that_works(path: Path, options: dict[str, Any]) -> None:
    with kvs.open(path, **options) as store:
        for number in range(100):
            store[b"%d" % number] = bytes(200)
        assert (len(store), store[b"99"]) == (100, bytes(200))
