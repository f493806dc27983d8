//! What writers leave behind in memory: nothing of keys that have gone.

use super::*;
use crate::sync::pin;

/// The places where the newest record of `key` may be.
fn candidate_count(store: &KvStore, key: &[u8]) -> usize {
    let keydir = &store.core.keydir;
    keydir.candidates(keydir.hash(key), &pin()).unwrap().count()
}

/// Until a batch is published, the keys that it removes have entries. Afterwards they have none.
#[test]
fn removed_keys_of_a_batch_leave_no_entry_behind() {
    for route in ROUTES {
        let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
        let store = open(&disk, Path::new(DIR), &options(route)).unwrap();
        do_step(&store, Batch(&[(0, Some(10)), (1, Some(10)), (2, Some(10))]), 0).unwrap();
        do_step(&store, Batch(&[(3, Some(10)), (0, None), (1, Some(20)), (2, None)]), 1).unwrap();
        let counts = [0, 1, 2, 3].map(|key| candidate_count(&store, KEYS[key].as_bytes()));
        assert_eq!(counts, [0, 1, 0, 1], "{route:?}");
    }
}
