"""What a store says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Stats:
    """Figures of a store, of about one moment; :meth:`Store.stats` makes it.

    ``_us`` are microseconds. What is counted is counted since the store was opened.

    Attributes:
        key_count: number of keys.
        total_bytes: bytes of all segment files: live and dead ones.
        live_bytes: bytes of the newest records of all keys, with what stands around them.
        expired_bytes: of these, those of keys that have expired; at least so many.
        dead_bytes: bytes of everything else, which compaction gives back.
        tombstone_count: number of the records that say that a key was removed.
        tombstone_bytes: bytes of them.
        segment_count: number of segment files.
        retired_file_count: number of files that compaction has replaced and somebody still reads.
        retired_bytes: bytes of them.
        index_bytes: memory of the index.
        unsynced_bytes: bytes that a loss of power would take at this moment.
        unsynced_us: age of the oldest of them.
        is_poisoned: whether the store takes no more writes (:class:`PoisonedError`).
        is_reserve_lent: whether the disk was found full, so that only removing and compaction work.
        has_tail: whether writes pass through a mapped tail, which some file systems do not allow.
        background_error: what background compaction failed with last, until :meth:`Store.compact`
            has raised it.
        crash_tails_cut: unfinished writes that the last open cut off and kept in ``lost+found``.
        open_us: how long opening the store took.
        group_count: groups of writes, each one write to the file.
        record_count: records written.
        written_bytes: bytes of them; what compaction writes comes on top.
        group_sizes: how many groups were of 1 record, of 2 or 3, 4 to 7, and so on.
        rotation_count: log files begun.
        sync_count: syncs of the disk.
        sync_us: how long they took together.
        sync_us_max: how long the longest of them took.
        throttle_count: how often a write was held back because compaction was behind.
        throttle_us: how long writes were held back together.
        throttle_us_max: how long a write was held back at most.
        compaction_count: compactions.
        compaction_read_bytes: bytes of files that they read.
        compaction_written_bytes: bytes of files that they wrote.
        compaction_us: how long they took together.
    """

    key_count: int
    total_bytes: int
    live_bytes: int
    expired_bytes: int
    dead_bytes: int
    tombstone_count: int
    tombstone_bytes: int
    segment_count: int
    retired_file_count: int
    retired_bytes: int
    index_bytes: int
    unsynced_bytes: int
    unsynced_us: int
    is_poisoned: bool
    is_reserve_lent: bool
    has_tail: bool
    background_error: str | None
    crash_tails_cut: int
    open_us: int
    group_count: int
    record_count: int
    written_bytes: int
    group_sizes: tuple[int, ...]
    rotation_count: int
    sync_count: int
    sync_us: int
    sync_us_max: int
    throttle_count: int
    throttle_us: int
    throttle_us_max: int
    compaction_count: int
    compaction_read_bytes: int
    compaction_written_bytes: int
    compaction_us: int


@dataclass(frozen=True)
class Damage:
    """A stretch of a file that is not what it should be.

    Attributes:
        path: the file.
        offset: where it begins, in bytes.
        bytes: how long it is; 0 if that cannot be told.
        what: what contradicts what.
        writes: first and last number of the writes that were there, as far as their neighbours
            tell.
    """

    path: str
    offset: int
    bytes: int
    what: str
    writes: tuple[int, int] | None


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found; :meth:`Store.verify` makes it.

    Attributes:
        segment_count: files that were read.
        record_count: records that are whole.
        total_bytes: bytes of the files.
        live_key_count: keys whose record was read.
        unreadable_key_count: keys whose record cannot be read.
        crash_tail_bytes: bytes of an unfinished write at the end of the newest file; no damage.
        damage_count: how many damages there are.
        damages: the first thousand of them.
    """

    segment_count: int
    record_count: int
    total_bytes: int
    live_key_count: int
    unreadable_key_count: int
    crash_tail_bytes: int
    damage_count: int
    damages: tuple[Damage, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return self.damage_count == 0 and self.unreadable_key_count == 0


def stats_of(text: bytes) -> Stats:
    """Return the figures in ``text``, which is JSON of the library."""
    members = _known(Stats, json.loads(text))
    members["group_sizes"] = tuple(members["group_sizes"])
    return Stats(**members)


def report_of(text: bytes) -> VerifyReport:
    """Return the report in ``text``, which is JSON of the library."""
    members = _known(VerifyReport, json.loads(text))
    members["damages"] = tuple(_damage_of(damage) for damage in members["damages"])
    return VerifyReport(**members)


def _damage_of(data: dict[str, Any]) -> Damage:
    members = _known(Damage, data)
    if members["writes"] is not None:
        first, last = members["writes"]
        members["writes"] = (first, last)
    return Damage(**members)


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """Return what ``kind`` has a field for: a newer library may say more."""
    return {field.name: data[field.name] for field in fields(kind)}
