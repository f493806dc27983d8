//! Views whose writer acts between any two calls of theirs to the disk: they open all the same, and
//! show what the store held at some moment from the first call on.

use super::*;
use crate::store::disk::failing::FailingDisk;
use crate::store::location::SegmentId;
use crate::store::log_file::used_len;
use crate::store::names;

/// What is there before the view.
const BEFORE: &[Step] = &[
    Set(0, 900),
    Set(1, 900),
    Set(2, 900),
    Set(0, 700),
    Compact,
    Set(3, 900),
    Batch(&[(4, Some(400)), (1, None), (5, Some(100))]),
    Set(0, 30),
];

/// What the writer does meanwhile.
const ACTS: &[&[Step]] = &[
    &[Set(3, 1)],
    &[Set(3, 500), Batch(&[(0, Some(900)), (4, None)]), Set(1, 900), Set(2, 900), Set(3, 900)],
    &[Set(2, 5), Compact],
    &[Compact, Set(0, 900), Set(2, 900), Compact, Set(5, 9)],
    &[Clear, Compact],
    &[Set(1, 5), Reopen],
    &[Set(1, 5), Reopen, Compact, Set(0, 1), Compact, Reopen],
];

/// A writer and what its store held after each write.
struct Bench {
    route: Route,
    model: Arc<dyn Disk>,
    writer: Option<KvStore>,
    states: Vec<Content>,
}

impl Bench {
    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            if self.writer.is_none() || matches!(step, Reopen) {
                drop(self.writer.take());
                let options = options(self.route);
                self.writer = Some(open(&self.model, Path::new(DIR), &options).unwrap());
            }
            let number = self.states.len();
            // Known before it is done: whoever looks meanwhile may see it.
            self.states.extend(after(&self.states[number - 1], *step, number));
            do_step(self.writer.as_ref().unwrap(), *step, number).unwrap();
        }
    }
}

/// A store with a writer, or as a crash left it, with a torn tail.
fn bench(route: Route, crashed: bool) -> (Arc<dyn Disk>, Arc<Mutex<Bench>>) {
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let mut bench = Bench { route, model: disk, writer: None, states: vec![Content::new()] };
    bench.run(BEFORE);
    if crashed {
        let left: Arc<dyn Disk> = Arc::new(moment_of(&model).after_kill());
        left.create_dir_all(Path::new(DIR)).unwrap();
        bench.model = Arc::clone(&left);
        bench.writer = None;
        let names = left.list(Path::new(DIR)).unwrap().into_iter();
        let last = names.filter_map(|name: std::ffi::OsString| match names::Name::parse(&name) {
            names::Name::Segment(id) => Some(id),
            _ => None,
        });
        let log = left.open(&names::segment(Path::new(DIR), last.max().unwrap())).unwrap();
        log.write_at(&[7; 300], log.len().unwrap()).unwrap();
    }
    (Arc::clone(&bench.model), Arc::new(Mutex::new(bench)))
}

#[test]
fn a_view_opens_whatever_its_writer_does_meanwhile() {
    let situations = [(false, false), (true, false), (false, true)];
    for (act, route, (refreshes, crashed)) in (0..ACTS.len()).flat_map(|act| {
        [Route::Tail, Route::Sync]
            .into_iter()
            .flat_map(move |route| situations.map(|situation| (act, route, situation)))
    }) {
        let mut call = 0;
        loop {
            let act = ACTS[act];
            let what = format!("{route:?}, {act:?} before call {call}, {refreshes}, {crashed}");
            let (model, bench) = bench(route, crashed);
            let failing = FailingDisk::new(model);
            let disk: Arc<dyn Disk> = Arc::new(failing.clone());
            let options = options(route).read_only(true);
            let view = || open(&disk, Path::new(DIR), &options);
            let old = refreshes.then(|| view().unwrap());
            if refreshes {
                // Something has changed, or there is nothing to do.
                bench.lock().run(&[Set(4, 33)]);
            }
            let first = bench.lock().states.len() - 1;
            failing.act_after(call, {
                let bench = Arc::clone(&bench);
                move || bench.lock().run(act)
            });
            let view = old.map_or_else(&view, |old| old.refresh());
            let view = view.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let found = content(&view).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert!(bench.lock().states[first..].contains(&found), "{what}: {found:?}");
            if failing.has_act() {
                assert!(call > 20, "{what}: a view is more than that");
                break;
            }
            call += 1;
        }
    }
}

/// A write may be half there when it is looked at, and durable, as a mark behind it says, a moment
/// later. Then it was being written, and is not damaged.
#[test]
fn a_write_that_is_half_there_is_waited_for() {
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let store = open(&disk, Path::new(DIR), &options(Route::Sync)).unwrap();
    let path = names::segment(Path::new(DIR), SegmentId::new(1));
    let read = |from: u64, to: u64| {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        disk.open(&path).unwrap().read_at(&mut bytes, from).unwrap();
        bytes
    };
    let set = |key, number| {
        do_step(&store, Set(key, 100), number).unwrap();
        (used_len(&*disk.open(&path).unwrap()).unwrap(), content(&store).unwrap())
    };
    let [(_, before), (end, whole), (last, after)] =
        [(0, 0), (1, 1), (2, 2)].map(|(k, n)| set(k, n));
    let half = end - 90;
    let mut call = 0;
    loop {
        let left: Arc<dyn Disk> = Arc::new(moment_of(&model).after_kill());
        left.create_dir_all(Path::new(DIR)).unwrap();
        let log = left.open(&path).unwrap();
        log.write_at(&vec![0; usize::try_from(last - half).unwrap()], half).unwrap();
        let failing = FailingDisk::new(left);
        let rest = read(half, last);
        failing.act_after(call, move || log.write_at(&rest, half).unwrap());
        let disk: Arc<dyn Disk> = Arc::new(failing.clone());
        let view = open(&disk, Path::new(DIR), &options(Route::Sync).read_only(true));
        let view = view.unwrap_or_else(|error| panic!("written at call {call}: {error:?}"));
        let found = content(&view).unwrap();
        assert!([&before, &whole, &after].contains(&&found), "written at call {call}: {found:?}");
        if failing.has_act() {
            assert!(call > 10 && found == before, "a view is more than {call} calls");
            break;
        }
        call += 1;
    }
}

/// However little a log has changed: where it has room, not even its length has.
#[test]
fn a_refresh_shows_every_write_before_it() {
    for route in ROUTES {
        let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
        let store = open(&disk, Path::new(DIR), &options(route)).unwrap();
        let options = options(route).read_only(true);
        let mut view = open(&disk, Path::new(DIR), &options).unwrap();
        for number in 0..100 {
            do_step(&store, Set(number % 3, 9), number).unwrap();
            view = view.refresh().unwrap();
            assert_eq!(content(&view).unwrap(), content(&store).unwrap(), "{route:?} {number}");
        }
    }
}
