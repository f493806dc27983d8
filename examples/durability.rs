//! The three levels of durability, and how to pay for a sync once instead of a thousand times.
//!
//! `cargo run --example durability -- DIRECTORY`

use std::path::PathBuf;
use std::time::Duration;

use kvs::{Durability, KvStore, KvsEngine, Options};

fn main() -> kvs::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "durability.kvs".to_owned()));
    let interval = Durability::Interval(Duration::from_millis(100));
    for (name, durability) in
        [("os", Durability::Os), ("100ms", interval), ("sync", Durability::Sync)]
    {
        let store = KvStore::open_with(dir.join(name), Options::new().durability(durability))?;
        store.set_bytes(b"one", b"survives what the level says")?;
        for index in 0_u32..if durability == Durability::Sync { 10 } else { 1_000 } {
            store.set_bytes(&index.to_be_bytes(), b"many")?;
        }
        store.sync()?; // from here on all of them survive a loss of power, at every level
        store.close()?;
    }
    Ok(())
}
