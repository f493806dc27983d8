//! The tail beside those who copy from it: what is copied is what was put, or it is thrown away.

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

use std::path::Path;

use super::Model;
use crate::store::disk::modelled::ModelledDisk;
use crate::store::tail::{TAIL_LEN, Tail};
use crate::sync::{Arc, AtomicU64, Ordering};

pub(super) const ALL: &[Model] = &[("tail: a copy is whole", a_copy_is_whole)];

fn a_copy_is_whole() {
    const LEN: usize = TAIL_LEN / 2;
    let tail = Tail::open(&ModelledDisk::default(), Path::new("/tail")).unwrap();
    let (tail, base) = (Arc::new(tail), 2 * u64::try_from(TAIL_LEN).unwrap());
    let at = move |n: u8| base + u64::try_from(LEN).unwrap() * u64::from(n);
    tail.put(at(0), &[7; LEN]);
    // How many were put since.
    let put = Arc::new(AtomicU64::new(0));
    let reader = {
        let (tail, put) = (Arc::clone(&tail), Arc::clone(&put));
        thread::spawn(move || {
            let mut buffer = [0; LEN];
            // Acquire: pairs with the Release below.
            let newest = u8::try_from(put.load(Ordering::Acquire)).unwrap();
            for n in [0, newest] {
                if tail.copy(at(n), &mut buffer) {
                    assert_eq!(buffer, [7 + n; LEN], "what was copied is not what was put");
                }
            }
        })
    };
    for n in 1..=2 {
        tail.put(at(n), &[7 + n; LEN]);
        // Release: pairs with the Acquire above, as the length of a log does.
        put.store(u64::from(n), Ordering::Release);
    }
    reader.join().unwrap();
    let mut buffer = [0; LEN];
    assert!(tail.copy(at(2), &mut buffer) && buffer == [9; LEN]);
    assert!(!tail.copy(at(0), &mut buffer), "it was overwritten");
}
