"""What a store says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Stats:
    """Figures of a store, of about one moment; :meth:`Store.stats` makes it.

    Attributes:
        key_count: number of keys.
        live_bytes: bytes of the newest records of all keys, with what stands around them.
        total_bytes: bytes of all segment files.
        tombstone_bytes: bytes of the records that say that a key was removed.
        segment_count: number of segment files.
        index_bytes: memory of the index.
        compaction_count: compactions since the store was opened.
        group_count: groups of writes since the store was opened, each one write to the file.
        record_count: records written since the store was opened.
        sync_count: syncs of the disk since the store was opened.
        crash_tails_cut: unfinished writes that the last open cut off and kept in ``lost+found``.
    """

    key_count: int
    live_bytes: int
    total_bytes: int
    tombstone_bytes: int
    segment_count: int
    index_bytes: int
    compaction_count: int
    group_count: int
    record_count: int
    sync_count: int
    crash_tails_cut: int


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
    return Stats(**_known(Stats, json.loads(text)))


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
