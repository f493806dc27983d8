//! The tail: a small file, mapped for writing, in front of the active log.
//!
//! ```text
//! log    | record | record | ... |                    in the file of the segment
//!                                | record | record |  in the tail until there is a piece of them
//!                                flushed           written
//!
//! TAIL   |  ... | record | record |  older ones, still whole |      used round and round
//! ```
//! Appending to a log is copying into this mapping: no system call. The pages belong to the kernel,
//! so what was copied survives `kill -9` exactly as if it had been written. When a piece of
//! [`PIECE_LEN`] is together, or somebody asks for a sync, it goes to the segment by one write.
//!
//! The place of a byte follows from its offset in the log: `offset % length of the tail`. Recovery
//! reads a log to its end and goes on in the tail, see [`TailImage`]. What is stale there fails:
//! the checksum of a record's header is seeded with the salt of the log and with the offset, and
//! its seqno must follow on. Nothing is ever taken out of the tail, so a record in it that proves
//! itself is one that was appended.
//!
//! The file is written full, and synced, once; from then on its blocks are only overwritten, so
//! there is no full disk to meet. It is never synced again: what power loss may cost, the segments
//! decide. Any mixture of old and new sectors may be found in it then, and is told apart by the
//! same checks.
//!
//! # Concurrency
//!
//! The leader of the writer puts; anyone copies, without a lock and without making anyone wait. All
//! logs of an open store share one space of positions, each beginning at a multiple of the tail's
//! length. `overwritten` says below which position bytes may be gone; it rises before they go:
//!
//! ```text
//! put                                         copy
//!   overwritten = end - length   (Release)      read the words          (Relaxed)
//!   fence                        (Release)      fence                   (Acquire)
//!   write the words              (Relaxed)      is it overwritten?      (Acquire)
//! ```
//! If a copy read a word of a later put, the fences make it see that put's `overwritten`, and it is
//! thrown away. Only what was flushed is overwritten, so the bytes are found in the segment then.

use std::path::Path;

use crate::error::Result;
use crate::store::disk::{Disk, Words};
use crate::store::location::{Seqno, len_of};
use crate::store::record::{Record, Salt};
use crate::sync::{AtomicU64, Ordering, fence};

/// Length of the tail (512 KiB): it stays in the cache of one core. Small in tests of the crate, so
/// that they see it go round, and in models.
pub(crate) const TAIL_LEN: usize = if cfg!(loom) {
    32
} else if cfg!(shuttle) {
    1 << 10
} else if cfg!(any(test, fuzzing)) {
    4 << 10
} else {
    512 << 10
};

/// So much of it goes to the segment at once (128 KiB): a write costs less a byte from here on than
/// copying does. What is longer by itself does not pass through the tail.
pub(crate) const PIECE_LEN: usize = TAIL_LEN / 4;

/// A tail longer than this is nobody's (16 MiB).
const IMAGE_LEN_MAX: u64 = 16 << 20;

const WORD_LEN: usize = size_of::<u64>();

/// The tail of an open store.
#[derive(Debug)]
pub(crate) struct Tail {
    words: Words,
    /// Below this position, bytes may have been overwritten.
    overwritten: AtomicU64,
}

impl Tail {
    /// The tail at `path`, made if there is none of the right length. What it holds is not looked
    /// at any more.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let is_ready = disk.exists(path)? && disk.open(path)?.len()? == len_of(TAIL_LEN);
        if !is_ready {
            if disk.exists(path)? {
                disk.remove(path)?;
            }
            let file = disk.create(path)?;
            let made = file.write_at(&vec![0; TAIL_LEN], 0).and_then(|()| file.sync());
            // A short one would only be in the way.
            made.inspect_err(|_| drop(disk.remove(path)))?;
        }
        let words = disk.open(path)?.map_shared(TAIL_LEN)?;
        Ok(Self { words, overwritten: AtomicU64::new(0) })
    }

    /// Where the positions of a log that begins now start. By whoever may put.
    pub(crate) fn begin(&self) -> u64 {
        // Relaxed: only who puts changes it.
        let overwritten = self.overwritten.load(Ordering::Relaxed);
        (overwritten + len_of(TAIL_LEN)).next_multiple_of(len_of(TAIL_LEN))
    }

    /// Puts `bytes`, whole words, at position `at`. One thread at a time, at rising positions. What
    /// lies a tail's length before their end was flushed, and those who read know it.
    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        let end = at + len_of(bytes.len());
        let len = bytes.len();
        debug_assert!(
            len <= TAIL_LEN && len.is_multiple_of(WORD_LEN) && at.is_multiple_of(8),
            "{at}: {len}"
        );
        // Release: pairs with the Acquire in `copy`: who sees it sees that they were flushed.
        self.overwritten.store(end.saturating_sub(len_of(TAIL_LEN)), Ordering::Release);
        // Pairs with the fence in `copy`.
        fence(Ordering::Release);
        let (bytes, _) = bytes.as_chunks();
        let (words, first_words) = self.words_from(at);
        let (before, after) = bytes.split_at(bytes.len().min(words.len()));
        store(words, before);
        store(first_words, after);
    }

    /// Copies what lies from `at` on into `buffer`; false if it was overwritten. All of it was put.
    pub(crate) fn copy(&self, at: u64, buffer: &mut [u8]) -> bool {
        debug_assert!(buffer.len() <= TAIL_LEN && at.is_multiple_of(8), "{at}: {}", buffer.len());
        let (words, first_words) = self.words_from(at);
        let (before, after) = buffer.split_at_mut(buffer.len().min(words.len() * WORD_LEN));
        load(words, before);
        load(first_words, after);
        // Pairs with the fence in `put`: if a word above was put later, so was `overwritten`.
        fence(Ordering::Acquire);
        // Acquire: pairs with the Release in `put`.
        self.overwritten.load(Ordering::Acquire) <= at
    }

    /// The words from position `at` on: those up to the end, and those before, which come next.
    fn words_from(&self, at: u64) -> (&[AtomicU64], &[AtomicU64]) {
        let place = usize::try_from(at % len_of(TAIL_LEN)).expect("less than a length");
        let (before, from) = self.words.split_at(place / WORD_LEN);
        (from, before)
    }
}

/// Puts `bytes` into the first of `words`.
#[inline]
fn store(words: &[AtomicU64], bytes: &[[u8; WORD_LEN]]) {
    for (word, bytes) in words.iter().zip(bytes) {
        // Relaxed: the fences in `put` order it. `LogFile::len` publishes it.
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Fills `bytes` from the first of `words`.
#[inline]
fn load(words: &[AtomicU64], bytes: &mut [u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_mut(WORD_LEN)) {
        // Relaxed: the fence in `copy` orders it.
        let word = word.load(Ordering::Relaxed).to_ne_bytes();
        if let Some(word) = word.get(..bytes.len()) {
            bytes.copy_from_slice(word);
        }
    }
}

/// What lies in a tail at one moment, for whoever reads a log that its writer left unsealed, or is
/// just writing.
///
/// Who reads beside a writer takes the image *before* the length of the log: what was appended by
/// then is in the image, or in the file, since only what was flushed is overwritten.
#[derive(Debug)]
pub(crate) struct TailImage {
    /// Twice the same, so that no record is cut by the end.
    bytes: Vec<u8>,
    len: u64,
}

/// What goes on behind the file of a log.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Where it begins: at the end of the file or before.
    pub(crate) from: u64,
    /// Whole records.
    pub(crate) bytes: Vec<u8>,
}

impl TailImage {
    /// The image of the tail at `path`; `None` if there is none.
    pub(crate) fn take(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
        if !disk.exists(path)? {
            return Ok(None);
        }
        let file = disk.open_to_read(path)?;
        let len = file.len()?;
        if !(1..=IMAGE_LEN_MAX).contains(&len) || len % 8 != 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(len).expect("at most 16 MiB")];
        file.read_at(&mut bytes, 0)?;
        bytes.extend_from_within(..);
        Ok(Some(Self { bytes, len }))
    }

    /// What a tail holds, without what lies where in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records of the log with `salt` that go on behind the `len` bytes of its file, whose
    /// records begin at `start`. Nothing if the file has all of them.
    pub(crate) fn rest_of(&self, salt: Salt, start: u64, len: u64) -> Option<Rest> {
        let mut at = start.max(len.saturating_sub(self.len).next_multiple_of(8));
        while at <= len {
            let end = self.end_of_run(salt, at);
            if end > len {
                let bytes = self.bytes_at(at).get(..usize::try_from(end - at).ok()?)?;
                return Some(Rest { from: at, bytes: bytes.to_vec() });
            }
            at = end.max(at + 8);
        }
        None
    }

    /// Where the records end that follow on from offset `at`; `at` if there are none.
    fn end_of_run(&self, salt: Salt, at: u64) -> u64 {
        let (mut end, mut last) = (at, None::<Seqno>);
        while let Ok(record) = Record::decode(self.bytes_at(end), salt, end) {
            let after = |last: Seqno| if record.kind.is_write() { last.next() } else { last };
            let len = len_of(record.len());
            if last.is_some_and(|last| after(last) != record.seqno) || end + len > at + self.len {
                break;
            }
            (end, last) = (end + len, Some(record.seqno));
        }
        end
    }

    /// As much as the tail can hold, from the place of `offset` on.
    fn bytes_at(&self, offset: u64) -> &[u8] {
        let place = usize::try_from(offset % self.len).expect("less than a length");
        let len = usize::try_from(self.len).expect("a length in memory");
        self.bytes.get(place..place + len).expect("the tail stands there twice")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::store::disk::RealDisk;
    use crate::store::record::{BatchPlace, Draft};

    const SALT: Salt = Salt(5);

    fn tail(dir: &Path) -> Tail {
        Tail::open(&RealDisk, &dir.join("TAIL")).unwrap()
    }

    fn image(dir: &Path) -> TailImage {
        TailImage::take(&RealDisk, &dir.join("TAIL")).unwrap().unwrap()
    }

    /// Records of 64 bytes with the seqnos from `first` on, as they lie at `offset`.
    fn records(offset: u64, first: u64, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for seqno in first..first + count {
            let draft = Draft::put(b"12345678", &[7; 32]);
            draft.encode(&mut bytes, offset, SALT, Seqno::new(seqno), BatchPlace::Alone);
        }
        bytes
    }

    #[test]
    fn what_was_put_is_copied_until_it_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let tail = tail(dir.path());
        let base = tail.begin();
        let mut buffer = [0; 64];
        for n in 0..1000_u64 {
            let at = base + n * 64;
            tail.put(at, &[u8::try_from(n % 251).unwrap(); 64]);
            assert!(tail.copy(at, &mut buffer));
            assert_eq!(buffer, [u8::try_from(n % 251).unwrap(); 64]);
            let kept = len_of(TAIL_LEN) / 64;
            if n >= kept {
                assert!(tail.copy(at - (kept - 1) * 64, &mut buffer), "the oldest that is whole");
                assert!(!tail.copy(at - kept * 64, &mut buffer), "{n}");
            }
        }
        assert!(tail.begin() > base + 64_000 && tail.begin().is_multiple_of(len_of(TAIL_LEN)));
        drop(tail);
        // What was put is in the file, as for whoever comes after a kill.
        assert!(image(dir.path()).bytes().contains(&246));
    }

    #[test]
    fn a_tail_of_another_length_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("TAIL");
        for content in [vec![], vec![1; 100], vec![1; 2 * TAIL_LEN]] {
            std::fs::write(&path, content).unwrap();
            drop(tail(dir.path()));
            assert_eq!(std::fs::read(&path).unwrap(), [0; TAIL_LEN]);
        }
    }

    /// Wherever the file of the log ends, in the middle of a record too, the tail goes on.
    #[test]
    fn the_rest_begins_at_the_last_record_that_the_file_may_lack() {
        let dir = tempfile::tempdir().unwrap();
        let tail = tail(dir.path());
        let start = 64;
        let log = records(start, 1, 200);
        for (n, record) in log.chunks(64).enumerate() {
            tail.put(start + len_of(n) * 64, record);
        }
        let (image, end) = (image(dir.path()), start + len_of(log.len()));
        let whole_from = end - len_of(TAIL_LEN);
        for len in (whole_from..end).step_by(8) {
            let rest = image.rest_of(SALT, start, len).unwrap();
            assert!(rest.from <= len, "{len}");
            let from = usize::try_from(rest.from - start).unwrap();
            assert_eq!(rest.bytes, log[from..], "{len}");
        }
        assert!(image.rest_of(SALT, start, end).is_none(), "the file has all");
        assert!(image.rest_of(SALT, start, whole_from - 64).is_none(), "it was overwritten");
        assert!(image.rest_of(Salt(6), start, end - 64).is_none(), "another log");
    }

    /// What lies behind the last record is older, though whole: it does not follow on.
    #[test]
    fn stale_records_are_no_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("TAIL");
        let mut bytes = vec![0; TAIL_LEN];
        bytes[64..192].copy_from_slice(&records(64, 1, 2));
        // The right place and salt, and a seqno that is not next.
        bytes[192..256].copy_from_slice(&records(192, 9, 1));
        std::fs::write(&path, &bytes).unwrap();
        let rest = image(dir.path()).rest_of(SALT, 64, 64).unwrap();
        assert_eq!((rest.from, rest.bytes.len()), (64, 128));
    }

    /// Every flipped bit of a record that the file lacks ends the rest before it.
    #[test]
    fn a_damaged_record_is_no_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("TAIL");
        let mut bytes = vec![0; TAIL_LEN];
        bytes[64..128].copy_from_slice(&records(64, 1, 1));
        for bit in 64 * 8..128 * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bent).unwrap();
            assert!(image(dir.path()).rest_of(SALT, 64, 64).is_none(), "bit {bit}");
        }
    }

    /// Readers beside a writer that goes round: never a mixture.
    #[test]
    fn copies_are_whole_or_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let tail = tail(dir.path());
        let (base, done) = (tail.begin(), AtomicBool::new(false));
        let newest = AtomicU64::new(base);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut buffer, mut copied) = ([0; 64], 0_u64);
                    while !done.load(Ordering::Relaxed) || copied == 0 {
                        let at = newest.load(Ordering::Acquire);
                        if at > base && tail.copy(at, &mut buffer) {
                            copied += 1;
                            let number = (at / 64).to_ne_bytes();
                            assert!(buffer.chunks(8).all(|word| word == number), "{at}");
                        }
                    }
                });
            }
            for n in 1..300_000_u64 {
                let at = base + n * 64;
                tail.put(at, &(at / 64).to_ne_bytes().repeat(8));
                newest.store(at, Ordering::Release);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
