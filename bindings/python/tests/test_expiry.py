"""Keys that go at a time, alone and in batches."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import kvs


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_time_is_told_changed_and_taken_off(store: kvs.Store, path: Path) -> None:
    later = now_ms() + 3_600_000
    store.set(b"k", b"v", expiry_ms=later)
    assert (store[b"k"], store.expiry(b"k")) == (b"v", later)
    assert store.set_expiry(b"k", expiry_ms=later + 1) == later
    assert store.persist(b"k") is True
    assert store.persist(b"k") is False
    assert store.expiry(b"k") is None
    assert store.set_expiry(b"k", expiry_ms=later) is None
    store[b"k"] = b"w"
    assert store.expiry(b"k") is None
    store.set(b"k", b"x", expiry_ms=later)
    store.set(b"k", b"y")
    assert (store[b"k"], store.expiry(b"k")) == (b"y", None)
    store.set(b"k", b"z", expiry_ms=later)
    store.close()
    with kvs.open(path) as again:
        assert (again[b"k"], again.expiry(b"k")) == (b"z", later)


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
def test_a_time_to_live_counts_from_now(store: kvs.Store, ttl: Any) -> None:
    before = now_ms()
    store.set(b"k", b"v", ttl=ttl)
    at = store.expiry(b"k")
    assert at is not None
    assert before + 60_000 <= at <= now_ms() + 60_001
    assert store.set_expiry(b"k", ttl=math.inf) == at
    assert store.expiry(b"k") is None


def test_a_key_is_there_until_its_time_and_not_after(store: kvs.Store) -> None:
    store.set(b"k", b"v", ttl=0.3)
    at = store.expiry(b"k")
    assert at is not None
    while True:
        before = now_ms()
        if b"k" not in store:
            break
        assert before < at
        time.sleep(0.001)
    assert now_ms() >= at
    for call in (store.expiry, store.persist, store.set_expiry, store.__getitem__):
        with pytest.raises(KeyError) as missing:
            call(b"k")
        assert missing.value.args == (b"k",)


def test_a_time_in_the_past_removes(store: kvs.Store) -> None:
    store[b"k"] = b"v"
    store.set(b"k", b"w", expiry_ms=0)
    assert b"k" not in store
    store.set(b"k", b"w", ttl=0)
    assert store.get(b"k") is None


def test_a_batch_sets_keys_with_their_times(store: kvs.Store) -> None:
    later = now_ms() + 3_600_000
    with store.batch() as batch:
        batch.set(b"goes", b"1", expiry_ms=later)
        batch.set(b"soon", b"2", ttl=60)
        batch.set(b"stays", b"3")
        batch.set(b"gone", b"4", expiry_ms=1)
    assert dict(store) == {b"goes": b"1", b"soon": b"2", b"stays": b"3"}
    assert (store.expiry(b"goes"), store.expiry(b"stays")) == (later, None)
    assert now_ms() < (store.expiry(b"soon") or 0) <= now_ms() + 60_001


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"ttl": -1}, ValueError, "0 or more seconds"),
        ({"ttl": math.nan}, ValueError, "0 or more seconds"),
        ({"ttl": timedelta(seconds=-1)}, ValueError, "0 or more seconds"),
        ({"ttl": "1"}, TypeError, "seconds or a timedelta, not str"),
        ({"ttl": True}, TypeError, "not bool"),
        ({"expiry_ms": -1}, ValueError, "milliseconds since 1970"),
        ({"expiry_ms": 2**64 - 1}, ValueError, "milliseconds since 1970"),
        ({"expiry_ms": time.time()}, TypeError, "an int, not float"),
        ({"expiry_ms": 1, "ttl": 1}, ValueError, "not both"),
    ],
)
def test_times_that_are_none_are_refused(
    store: kvs.Store, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    store[b"k"] = b"v"
    batch = store.batch()
    for call in (store.set, batch.set):
        with pytest.raises(error, match=words):
            call(b"k", b"w", **arguments)
    with pytest.raises(error, match=words):
        store.set_expiry(b"k", **arguments)
    assert len(batch) == 0
    assert (store[b"k"], store.expiry(b"k")) == (b"v", None)


def test_far_times_stay_far(store: kvs.Store) -> None:
    store.set(b"k", b"v", expiry_ms=2**64 - 2)
    assert store.expiry(b"k") == 2**64 - 2
    store.set(b"k", b"v", ttl=1e300)
    assert store.expiry(b"k") is None


def test_an_engine_without_expiry_says_so(path: Path) -> None:
    with kvs.open(path, engine="sled") as store:
        store.set(b"k", b"v")
        assert store.expiry(b"k") is None
        assert not store.persist(b"k")
        with pytest.raises(kvs.UnsupportedError, match="expiry"):
            store.set(b"k", b"v", ttl=1)
