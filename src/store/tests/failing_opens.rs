//! Opens of what a killed process left, on a disk that fails meanwhile: the first call, then the
//! second, and so on until an open runs clean. What was acknowledged is there, if not for the open
//! that fails, then for the next.

use super::failures::{FAULTS, check_typed, fault};
use super::*;
use crate::store::disk::failing::{Call, Fault};
use crate::store::{names, verify};

/// What was left, and what must be found there.
struct Killed {
    moment: Moment,
    acknowledged: Content,
    route: Route,
}

impl Killed {
    /// A process that was killed where `history` ends, or is opened again for the first time.
    fn after(history: &[Step], route: Route) -> Self {
        let model = ModelledDisk::default();
        let disk: Arc<dyn Disk> = Arc::new(model.clone());
        let store = open(&disk, Path::new(DIR), &options(route)).unwrap();
        let mut acknowledged = Content::new();
        let until = history.iter().take_while(|step| !matches!(step, Reopen));
        for (number, step) in until.chain(&[Set(0, 30), Remove(2), Set(1, 10)]).enumerate() {
            // A key that is not there cannot be removed.
            if do_step(&store, *step, number).is_ok() {
                acknowledged = after(&acknowledged, *step, number).unwrap_or(acknowledged);
            }
        }
        Self { moment: moment_of(&model), acknowledged, route }
    }

    /// Opens it with the chosen call failing that comes after `pass` others; false if none comes.
    fn check(&self, options: &Options, fault: Fault, pass: u64) -> bool {
        let told = format!("{:?}, {fault:?}, call {pass}", self.route);
        let failing = FailingDisk::new(Arc::new(self.moment.after_kill()));
        let disk: Arc<dyn Disk> = Arc::new(failing.clone());
        failing.fail_after(pass, fault);
        match open(&disk, Path::new(DIR), options) {
            Ok(store) => {
                match content(&store) {
                    Ok(found) => assert_eq!(found, self.acknowledged, "opened, {told}"),
                    Err(error) => check_typed(&error),
                }
                store.close().unwrap_or_else(|error| check_typed(&error));
            }
            Err(error) => check_typed(&error),
        }
        failing.heal();
        let store = open(&disk, Path::new(DIR), &super::options(self.route)).unwrap();
        assert_eq!(content(&store).unwrap(), self.acknowledged, "opened again, {told}");
        failing.struck() > 0
    }
}

/// A tail whose file could not be looked at was taken for missing, and what was in it lost.
#[test]
fn every_failing_call_of_an_open_is_survived() {
    let mut points = 0;
    for route in ROUTES {
        for history in [HISTORY, OVERWRITES, EXPIRING] {
            let killed = Killed::after(history, route);
            for read_only in [false, true] {
                let options = options(route).read_only(read_only);
                for fault in FAULTS {
                    for sticky in [false, true] {
                        let fault = Fault { sticky, ..*fault };
                        let all = (0..).take_while(|pass| killed.check(&options, fault, *pass));
                        points += all.count();
                    }
                }
            }
        }
    }
    println!("failing calls: {points}");
    assert!(points > 5000, "{points}");
}

/// Without it the store looks whole, and a repair would leave out the newest writes and not say so.
#[test]
fn a_tail_that_cannot_be_read_is_a_damage() {
    let killed = Killed::after(HISTORY, Route::Tail);
    let failing = FailingDisk::new(Arc::new(killed.moment.after_kill()));
    let verify = || verify::verify_dir(&failing, Path::new(DIR), &mut |_| {}).unwrap();
    assert!(verify().is_sound());
    // The directory is looked at first.
    let looks = Fault { sticky: true, ..fault(libc::EIO, |call| call == Call::Exists) };
    failing.fail_after(1, looks);
    let damages = verify().damages;
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(damages[0].path, names::tail(Path::new(DIR)));
}
