//! Checkpoints that fail half way.

use std::time::Duration;

use super::failures::fault;
use super::*;
use crate::store::disk::failing::Call;
use crate::store::names;

/// What is made so far is removed by name. It was without the lock: whoever had opened the
/// directory in that moment lost files.
#[test]
fn nobody_gets_the_directory_before_a_failed_checkpoint_has_left_it() {
    let mut seen = 0;
    for calls in 0.. {
        let (failing, store) = failing_store(Route::Direct);
        do_step(&store, Set(0, 100), 0).unwrap();
        let looked = Arc::new(Mutex::new(None));
        let (answer, disk) = (Arc::clone(&looked), failing.clone());
        failing.act_after(calls, move || {
            let dir = copy_dir(1);
            let has_files = disk.list(&dir).is_ok_and(|files| !files.is_empty());
            let taken = disk.lock(&names::lock(&dir), Duration::ZERO);
            *answer.lock() = Some(!has_files || taken.is_err());
        });
        // The manifest, whose sync is the first after that of the log.
        failing.fail_after(1, fault(libc::EIO, |call| call == Call::Sync));
        let failed = do_step(&store, Checkpoint, 1);
        assert_eq!(failed.unwrap_err().os_error(), Some(libc::EIO));
        let Some(is_kept) = *looked.lock() else { break };
        assert!(is_kept, "before call {calls}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}
