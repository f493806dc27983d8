"""A store is a mapping: iteration, views, scans, batches, and steps that nobody comes between."""

from __future__ import annotations

import random
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

import kvs

CITIES = {b"no": b"Oslo", b"se": b"Stockholm", b"nl": b"Amsterdam", b"": b"", b"n\0": b"\xff"}


@pytest.fixture
def cities(store: kvs.Store) -> kvs.Store:
    store.update(CITIES)
    return store


def test_it_is_a_mutable_mapping(cities: kvs.Store) -> None:
    assert isinstance(cities, MutableMapping)
    assert cities == CITIES
    assert cities != {}
    del cities[b"no"]
    assert cities != CITIES


def test_iteration_goes_by_the_bytes_of_the_keys(cities: kvs.Store) -> None:
    keys = sorted(CITIES)
    assert list(cities) == list(cities.keys()) == keys
    assert list(reversed(cities)) == keys[::-1]
    assert list(cities.items()) == [(key, CITIES[key]) for key in keys]
    assert list(cities.values()) == [CITIES[key] for key in keys]


def test_views_answer_without_being_lists(cities: kvs.Store) -> None:
    assert (b"no", b"Oslo") in cities.items()
    assert (b"no", b"Bergen") not in cities.items()
    assert b"Oslo" in cities.values()
    assert b"Bergen" not in cities.values()
    assert len(cities.items()) == len(cities.values()) == len(cities.keys()) == 5
    assert cities.keys() & {b"no", b"dk"} == {b"no"}
    view = cities.keys()
    del cities[b"no"]
    assert b"no" not in view


@pytest.mark.parametrize(
    ("arguments", "sees"),
    [
        ({}, [b"", b"n\0", b"nl", b"no", b"se"]),
        ({"start": b"nl"}, [b"nl", b"no", b"se"]),
        ({"stop": b"nl"}, [b"", b"n\0"]),
        ({"start": b"n", "stop": b"no"}, [b"n\0", b"nl"]),
        ({"start": b"no", "stop": b"n"}, []),
        ({"stop": b""}, []),
        ({"prefix": b"n"}, [b"n\0", b"nl", b"no"]),
        ({"prefix": b""}, [b"", b"n\0", b"nl", b"no", b"se"]),
        ({"prefix": b"n", "reverse": True}, [b"no", b"nl", b"n\0"]),
        ({"start": b"nl", "reverse": True}, [b"se", b"no", b"nl"]),
    ],
    ids=str,
)
def test_scans_obey_bounds_prefix_and_direction(
    cities: kvs.Store, arguments: dict[str, Any], sees: list[bytes]
) -> None:
    assert list(cities.scan(**arguments)) == [(key, CITIES[key]) for key in sees]
    assert list(cities.scan(**arguments, keys_only=True)) == sees


def test_an_unordered_scan_sees_everything_too(cities: kvs.Store) -> None:
    assert dict(cities.scan(ordered=False)) == CITIES
    assert set(cities.scan(ordered=False, keys_only=True)) == set(CITIES)


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": b"a", "prefix": b"a"},
        {"stop": b"a", "prefix": b"a"},
        {"prefix": b"a", "ordered": False},
        {"start": b"a", "ordered": False},
        {"reverse": True, "ordered": False},
    ],
    ids=str,
)
def test_arguments_that_contradict_each_other_are_refused(
    store: kvs.Store, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="by start and stop, or by prefix, or not ordered"):
        store.scan(**arguments)


def test_a_scan_of_many_chunks_sees_each_key_once(store: kvs.Store) -> None:
    """Longer than one fetch by far, with records that need room of their own in between."""
    values = {b"%05d" % n: bytes([n % 256]) * (n % 300) for n in range(5000)}
    values[b"02500+"] = bytes(300_000)
    store.update(values)
    assert dict(store.items()) == values
    assert list(store) == sorted(values)
    assert dict(store.scan(ordered=False)) == values


def test_a_scan_can_be_left_in_the_middle(cities: kvs.Store) -> None:
    scan = cities.scan(keys_only=True)
    assert next(scan) == b""
    with scan:
        assert next(scan) == b"n\0"
    assert list(scan) == []
    scan.close()
    for _ in cities.scan():
        break
    assert "ended" in repr(scan)


def test_keys_may_be_removed_during_a_scan(cities: kvs.Store) -> None:
    for key in cities:
        del cities[key]
    assert len(cities) == 0


def test_a_scan_keeps_its_store_alive(path: Path) -> None:
    with pytest.warns(ResourceWarning, match="unclosed store"):
        assert sorted(kvs.open(path).items()) == []


def test_closing_the_store_ends_its_scans(path: Path) -> None:
    with kvs.open(path) as store:
        store.update({b"%d" % n: bytes(1000) for n in range(1000)})
        scan = store.scan()
        next(scan)
    with pytest.raises(kvs.ClosedError):
        list(scan)
    with pytest.raises(kvs.ClosedError):
        store.scan()
    with pytest.raises(kvs.ClosedError):
        iter(store)


def test_threads_that_share_a_scan_get_each_key_once(store: kvs.Store) -> None:
    keys = [b"%05d" % n for n in range(20_000)]
    store.update(dict.fromkeys(keys, b""))
    scan, seen = store.scan(keys_only=True), list[bytes]()
    threads = [threading.Thread(target=lambda: seen.extend(scan)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == keys


def test_a_batch_is_written_when_its_block_ends(store: kvs.Store) -> None:
    store[b"pending"] = b"x"
    with store.batch(sync=True) as batch:
        batch[b"from"] = b"90"
        batch[bytearray(b"to")] = memoryview(b"110")
        del batch[b"pending"]
        del batch[b"absent"]
        assert len(batch) == 4
        assert dict(store) == {b"pending": b"x"}
    assert dict(store) == {b"from": b"90", b"to": b"110"}
    assert len(batch) == 0
    batch.write()


def test_a_batch_is_thrown_away_when_its_block_fails(store: kvs.Store) -> None:
    with pytest.raises(ZeroDivisionError), store.batch() as batch:
        batch[b"k"] = b"v"
        raise ZeroDivisionError
    assert len(store) == len(batch) == 0


def test_a_batch_that_is_refused_keeps_its_writes(store: kvs.Store) -> None:
    batch = store.batch()
    with pytest.raises(kvs.TooLargeError, match="65536"):
        batch[bytes(kvs.KEY_LEN_MAX + 1)] = b""
    with pytest.raises(TypeError, match="encode"):
        batch["k"] = b""  # type: ignore[index]
    assert len(batch) == 0
    for n in range(5):
        batch[b"%d" % n] = bytes(32 << 20)
    with pytest.raises(kvs.TooLargeError, match="split it"):
        batch.write()
    assert (len(batch), len(store)) == (5, 0)
    batch.clear()
    batch[b"k"] = b"v"
    store.close()
    with pytest.raises(kvs.ClosedError):
        batch.write()
    assert repr(batch).startswith("<kvs.Batch of 1 writes")


def test_update_is_all_or_nothing(store: kvs.Store) -> None:
    with pytest.raises(TypeError, match="a value must be bytes"):
        store.update({b"a": b"1", b"b": 2})  # type: ignore[arg-type]
    assert len(store) == 0
    store.update([(b"a", b"1"), (b"a", b"2")])
    store.update()
    assert dict(store) == {b"a": b"2"}


def test_swap_and_compare_and_swap_tell_absent_from_empty(store: kvs.Store) -> None:
    states = (None, b"", b"1")
    for there in states:
        for expected in states:
            for new in states:
                store.swap(b"k", there)
                assert store.compare_and_swap(b"k", expected, new) == (there == expected)
                assert store.swap(b"k", None) == (new if there == expected else there)
    assert b"k" not in store


def test_setdefault_pop_and_popitem_do_as_a_dictionary(cities: kvs.Store) -> None:
    assert cities.setdefault(b"no", b"Bergen") == b"Oslo"
    assert cities.setdefault(b"dk", b"Copenhagen") == b"Copenhagen"
    assert cities.setdefault(b"", b"x") == b""
    assert cities.pop(b"dk") == b"Copenhagen"
    assert cities.pop(b"dk", None) is None
    assert cities.pop(b"", b"x") == b""
    with pytest.raises(KeyError) as missing:
        cities.pop(b"dk")
    assert missing.value.args == (b"dk",)
    assert cities.popitem() == (b"n\0", b"\xff")
    cities.clear()
    assert len(cities) == 0
    with pytest.raises(KeyError):
        cities.popitem()


def test_clear_is_one_write_however_many_keys_there_are(store: kvs.Store) -> None:
    store.update({b"%d" % n: b"" for n in range(2500)})
    before = store.stats().record_count
    store.clear()
    assert list(store) == []
    assert store.stats().record_count - before <= 1


def test_counting_threads_lose_nothing(store: kvs.Store) -> None:
    def count() -> None:
        for _ in range(200):
            while True:
                old = store.setdefault(b"n", b"0")
                if store.compare_and_swap(b"n", old, b"%d" % (int(old) + 1)):
                    break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store[b"n"] == b"800"


def test_popped_items_go_to_one_thread_each(store: kvs.Store) -> None:
    store.update({b"%d" % n: b"%d" % n for n in range(400)})
    popped: list[tuple[bytes, bytes]] = []

    def pop_all() -> None:
        while True:
            try:
                popped.append(store.popitem())
            except KeyError:
                return

    threads = [threading.Thread(target=pop_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(popped) == sorted((b"%d" % n, b"%d" % n) for n in range(400))


def test_many_keys_are_looked_up_at_once(cities: kvs.Store) -> None:
    assert cities.get_many([b"no", b"dk", b"", b"no"]) == [b"Oslo", None, b"", b"Oslo"]
    assert cities.get_many(iter([memoryview(b"se")])) == [b"Stockholm"]
    assert cities.get_many([]) == []
    with pytest.raises(TypeError, match="encode"):
        cities.get_many(["no"])  # type: ignore[list-item]


def test_a_random_history_is_that_of_a_dictionary(store: kvs.Store) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  shown by pytest if it fails
    rng = random.Random(seed)
    model: dict[bytes, bytes] = {}
    for _ in range(2000):
        key, value = b"%d" % rng.randrange(50), rng.randbytes(rng.randrange(20))
        step = rng.randrange(7)
        if step == 0:
            store[key] = model[key] = value
        elif step == 1:
            assert store.pop(key, None) == model.pop(key, None)
        elif step == 2:
            assert store.setdefault(key, value) == model.setdefault(key, value)
        elif step == 3:
            assert store.swap(key, value) == model.get(key)
            model[key] = value
        elif step == 4:
            pairs = {b"%d" % rng.randrange(50): value for _ in range(3)}
            store.update(pairs)
            model.update(pairs)
        elif step == 5:
            expected = rng.choice([None, model.get(key), b"other"])
            swapped = store.compare_and_swap(key, expected, value)
            assert swapped == (model.get(key) == expected)
            if swapped:
                model[key] = value
        else:
            prefix = key[:1]
            sees = [(k, model[k]) for k in sorted(model) if k.startswith(prefix)]
            assert list(store.scan(prefix=prefix)) == sees
    assert store == model
