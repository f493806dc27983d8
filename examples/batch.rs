//! A transfer between two accounts: both change, or neither, whatever happens in between.
//!
//! `cargo run --example batch -- DIRECTORY`

use kvs::{KvStore, KvsEngine, WriteBatch, WriteOptions};

fn main() -> kvs::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "batch.kvs".to_owned());
    let store = KvStore::open(&dir)?;
    let mut batch = WriteBatch::new();
    batch.set(b"alice", b"100").set(b"bob", b"0").set(b"pending", b"30 from alice to bob");
    store.apply(&batch)?;

    batch.clear();
    batch.set(b"alice", b"70").set(b"bob", b"30").remove(b"pending");
    // This one must survive a loss of power before anybody is told of it.
    store.apply_with(&batch, WriteOptions { sync: true })?;
    store.close()?;

    let store = KvStore::open(&dir)?;
    assert_eq!(store.get_bytes(b"bob")?.as_deref(), Some(&b"30"[..]));
    assert!(!store.contains(b"pending")?);
    store.close()
}
