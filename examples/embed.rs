//! A store inside a program: open it, use it from several threads, close it.
//!
//! `cargo run --example embed -- DIRECTORY`

use std::thread;

use kvs::{KvStore, KvsEngine};

fn main() -> kvs::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "embed.kvs".to_owned());
    let store = KvStore::open(dir)?;
    thread::scope(|scope| {
        for city in ["Oslo", "Bergen", "Trondheim"] {
            let store = &store;
            scope.spawn(move || {
                store.set_bytes(city.as_bytes(), b"Norway").expect("the disk works");
            });
        }
    });
    let country = store.get_bytes(b"Oslo")?.expect("it was set above");
    store.set_bytes(b"Oslo", b"a value lent stays as it was")?;
    assert_eq!(&*country, b"Norway");
    assert_eq!(store.len()?, 3);
    // Says whether the last writes became durable; dropping the store would keep it to itself.
    store.close()
}
