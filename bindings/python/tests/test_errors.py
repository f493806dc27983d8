"""Each refusal is an exception of its own kind, and nothing stored is lost by it."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import in_fork

import kvs
from kvs import _abi, _errors


def check_error(
    error: kvs.Error, name: str, path: Path | None, os_errno: int | None = None
) -> None:
    assert error.name == name
    assert error.code == getattr(_abi, name[len("KVS_") :])
    assert error.path == (None if path is None else str(path))
    assert error.os_errno == os_errno
    assert str(error) == error.message
    assert error.message
    assert "\n" not in error.message


def test_every_call_on_a_closed_store_says_so(path: Path) -> None:
    store = kvs.open(path)
    store[b"k"] = b"v"
    store.close()
    for call in (
        lambda: store[b"k"],
        lambda: store.get(b"k"),
        lambda: b"k" in store,
        lambda: store.discard(b"k"),
        lambda: store.__delitem__(b"k"),
        lambda: store.__setitem__(b"k", b"w"),
        lambda: len(store),
        lambda: bool(store),
        store.sync,
        store.compact,
        store.serve,
    ):
        with pytest.raises(kvs.ClosedError, match="closed") as caught:
            call()
        check_error(caught.value, "KVS_ERR_CLOSED", path)
    assert isinstance(caught.value, ValueError)


def test_closing_twice_is_no_error(path: Path) -> None:
    with kvs.open(path) as store:
        store.close()
        store.close()
    assert store.closed


def test_a_failed_block_closes_the_store_and_keeps_its_exception(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), kvs.open(path) as store:
        store[b"k"] = b"v"
        raise ZeroDivisionError
    assert store.closed
    with kvs.open(path) as store:
        assert store[b"k"] == b"v"


def test_a_second_opener_is_told_who_holds_the_store(store: kvs.Store, path: Path) -> None:
    store[b"k"] = b"v"
    with pytest.raises(kvs.LockedError, match=rf"\b{os.getpid()}\b") as caught:
        kvs.open(path)
    check_error(caught.value, "KVS_ERR_LOCKED", path)
    assert store[b"k"] == b"v"


def test_a_second_opener_waits_as_long_as_it_was_told(store: kvs.Store, path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(kvs.LockedError):
        kvs.open(path, lock_timeout=0.5)
    assert 0.5 <= time.monotonic() - start < 5
    assert store.get(b"k") is None


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"precious")
    with pytest.raises(kvs.StoreNotADirectoryError) as caught:
        kvs.open(path)
    check_error(caught.value, "KVS_ERR_NOT_A_DIRECTORY", path)
    assert isinstance(caught.value, NotADirectoryError)
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"precious"


def test_a_store_is_not_created_if_that_is_not_wanted(path: Path) -> None:
    with pytest.raises(kvs.StoreNotFoundError) as caught:
        kvs.open(path, create=False)
    check_error(caught.value, "KVS_ERR_NO_STORE", path)
    assert isinstance(caught.value, FileNotFoundError)
    assert not path.exists()
    kvs.open(path).close()
    kvs.open(path, create=False).close()


def test_a_store_is_not_opened_if_a_new_one_is_wanted(path: Path) -> None:
    with kvs.open(path, exclusive=True) as store:
        store[b"k"] = b"v"
    with pytest.raises(kvs.StoreExistsError) as caught:
        kvs.open(path, exclusive=True)
    check_error(caught.value, "KVS_ERR_STORE_EXISTS", path)
    assert isinstance(caught.value, FileExistsError)
    with kvs.open(path) as store:
        assert store[b"k"] == b"v"


def test_an_engine_that_nobody_knows_is_unsupported(path: Path) -> None:
    with pytest.raises(kvs.UnsupportedError, match="leveldb") as caught:
        kvs.open(path, engine="leveldb")
    check_error(caught.value, "KVS_ERR_UNSUPPORTED", path)
    assert isinstance(caught.value, ValueError)


def test_a_store_of_another_engine_is_refused(path: Path) -> None:
    with kvs.open(path, engine="sled") as store:
        store[b"k"] = b"v"
    with pytest.raises(kvs.WrongEngineError, match="sled") as caught:
        kvs.open(path, engine="kvs")
    check_error(caught.value, "KVS_ERR_WRONG_ENGINE", path)
    with kvs.open(path) as store:
        assert store[b"k"] == b"v"


def test_a_directory_without_permission_is_a_permission_error(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0)

    def as_nobody() -> str:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            kvs.open(private / "store")
        except kvs.StorePermissionError as error:
            check_error(error, "KVS_ERR_PERMISSION", private / "store", errno.EACCES)
            return f"{error.errno} {isinstance(error, PermissionError)}"
        return "opened"

    # What pytest makes is its owner's only, which would be the first refusal.
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path(parent.anchor):
            parent.chmod(parent.stat().st_mode | 0o711)
    assert in_fork(as_nobody) == f"{errno.EACCES} True"
    private.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff"
    with pytest.raises(kvs.InvalidArgumentError, match="UTF-8") as caught:
        kvs.open(path)
    assert caught.value.name == "KVS_ERR_NOT_UTF8"
    assert caught.value.path == os.fsdecode(path)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(kvs.InvalidArgumentError, match="path"):
        kvs.open("")


def test_a_path_is_not_cut_at_a_zero_byte(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="null"):
        kvs.open(f"{tmp_path}/a\0b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"sync": "sometimes"}, ValueError, "'os', 'always'"),
        ({"sync": 0}, kvs.InvalidArgumentError, "above zero"),
        ({"sync": -1}, ValueError, "0 or more"),
        ({"sync": float("nan")}, ValueError, "0 or more"),
        ({"sync": True}, TypeError, "seconds"),
        ({"lock_timeout": "1"}, TypeError, "seconds"),
        ({"read_mode": "fast"}, ValueError, "'mapped', 'positioned'"),
        ({"write_mode": "fast"}, ValueError, "'tail', 'direct'"),
        ({"segment_bytes_max": 1}, kvs.InvalidArgumentError, "segment_bytes_max"),
        ({"segment_bytes_min": 1 << 40}, kvs.InvalidArgumentError, "segment_bytes_min"),
        ({"segment_bytes_max": -1}, ValueError, "between 0"),
        ({"segment_bytes_max": 1 << 64}, ValueError, "between 0"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
    ids=str,
)
def test_an_option_that_cannot_work_is_refused_by_name(
    path: Path, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        kvs.open(path, **options)
    assert not path.exists()


def test_a_store_cannot_be_pickled_or_copied(store: kvs.Store) -> None:
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="path"):
            duplicate(store)


@pytest.mark.parametrize("kind", sorted(set(_errors.CLASSES.values()), key=str))
def test_an_error_survives_pickling(kind: type[kvs.Error]) -> None:
    """Process pools pickle what their workers raise."""
    error = kind(-8, "KVS_ERR_IO", "cannot read d/x", "d", errno.EIO)
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is kind
    assert vars(copied) == vars(error)
    assert (str(copied), copied.args) == ("cannot read d/x", error.args)


def test_every_class_is_public_and_in_one_tree() -> None:
    for kind in _errors.CLASSES.values():
        assert issubclass(kind, kvs.Error)
        assert getattr(kvs, kind.__name__) is kind


def test_every_failure_of_the_header_has_a_class() -> None:
    failures = {value for name, value in vars(_abi).items() if name.startswith("ERR_")}
    assert set(_errors.CLASSES) == failures


def test_a_status_of_a_newer_library_is_a_plain_error(path: Path) -> None:
    error = _errors.failure(-9999, str(path))
    assert type(error) is kvs.Error
    assert (error.code, error.name) == (-9999, "KVS_ERR_UNKNOWN")
