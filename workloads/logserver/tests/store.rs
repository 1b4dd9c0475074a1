//! The store on a real folder: what it keeps over restarts and crashes, and what it lets go.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use fortia_logserver::filter::{Asked, Filter};
use fortia_logserver::folder::FolderError;
use fortia_logserver::metrics::Metrics;
use fortia_logserver::record::{Level, Record};
use fortia_logserver::retention::Retention;
use fortia_logserver::store::{SEGMENT_BYTES, Store};

const HOUR: u64 = 3_600_000_000_000;

fn open_with(path: &Path, max_bytes: u64, metrics: &Metrics) -> Store {
    let retention = Retention { max_age: Duration::from_secs(86_400), max_bytes };
    Store::open(path, retention, metrics.clone(), 0).expect("store opens")
}

fn open(path: &Path) -> Store {
    open_with(path, u64::MAX, &Metrics::default())
}

fn record(time: u64, service: &str, message: &str) -> Record {
    Record {
        time,
        severity: Level::Info as u32,
        service: service.into(),
        message: message.into(),
        ..Record::default()
    }
}

/// Appends records of `time..` until a segment has been sealed; returns the next time.
fn fill(store: &Store, mut time: u64, service: &str, now: u64) -> u64 {
    let mut bytes = 0;
    while bytes < SEGMENT_BYTES {
        // Not compressible, so that sizes on disk are like those in memory.
        let noise: String =
            (0..400u64).map(|i| char::from(33 + ((time * 7919 + i * i * 31) % 90) as u8)).collect();
        let batch: Vec<_> = (0..100).map(|i| record(time + i, service, &noise.repeat(20))).collect();
        bytes += 100 * 8000;
        time += 100;
        store.append(batch, now).expect("appended");
    }
    time
}

fn all() -> Filter {
    Asked { limit: Some("10000".into()), ..Asked::default() }.filter(u64::MAX).expect("filter")
}

fn times(store: &Store, filter: &Filter) -> Vec<u64> {
    store.query(filter).expect("answer").iter().map(|r| r.time).collect()
}

fn files(path: &Path, kind: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).expect("folder").map(|e| e.expect("entry").path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == kind)).collect();
    files.sort();
    files
}

#[test]
fn a_restart_keeps_what_was_appended_sealed_or_not() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path());
    let next = fill(&store, 0, "game", 0);
    store.append(vec![record(next, "auth", "last")], 0).expect("appended");
    let before = times(&store, &all());
    drop(store);
    assert_eq!((files(folder.path(), "sealed").len(), files(folder.path(), "open").len()), (1, 1));
    let store = open(folder.path());
    assert_eq!(times(&store, &all()), before);
    assert_eq!(before, (0..=next).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_off_counted_and_written_over() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path());
    store.append(vec![record(1, "game", "one"), record(2, "game", "two")], 0).expect("appended");
    drop(store);
    let file = files(folder.path(), "open").remove(0);
    let whole = fs::read(&file).expect("bytes");
    // Half of the second record, as a crash of the machine leaves it.
    fs::write(&file, &whole[..whole.len() - 5]).expect("torn");
    let metrics = Metrics::default();
    let store = open_with(folder.path(), u64::MAX, &metrics);
    assert_eq!(times(&store, &all()), [1]);
    assert_eq!(metrics.torn.get(), whole.len() as u64 / 2 - 5);
    store.append(vec![record(3, "game", "three")], 0).expect("appended");
    drop(store);
    assert_eq!(times(&open(folder.path()), &all()), [1, 3]);
}

#[test]
fn a_crash_while_sealing_neither_loses_nor_doubles_records() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path());
    store.append(vec![record(1, "game", "one")], 0).expect("appended");
    let open_file = files(folder.path(), "open").remove(0);
    let unsealed = fs::read(&open_file).expect("bytes");
    store.tick(2 * HOUR).expect("sealed by age");
    drop(store);
    assert_eq!(files(folder.path(), "sealed").len(), 1);
    // The crash came before the open file was removed, and in the middle of the next sealing.
    fs::write(&open_file, unsealed).expect("written");
    fs::write(open_file.with_file_name("000000000002.unfinished"), b"half").expect("written");
    let store = open(folder.path());
    assert_eq!(times(&store, &all()), [1]);
    assert_eq!(files(folder.path(), "unfinished").len(), 0);
}

#[test]
fn the_newest_records_are_found_in_order_over_segments_and_services() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path());
    let next = fill(&store, 1000, "game", 0);
    // Came later, happened earlier.
    store.append(vec![record(10, "auth", "late"), record(next, "game", "new")], 0).expect("appended");
    let asked = |set: fn(&mut Asked)| {
        let mut asked = Asked::default();
        set(&mut asked);
        times(&store, &asked.filter(u64::MAX).expect("filter"))
    };
    assert_eq!(asked(|a| a.limit = Some("3".into())), [next - 2, next - 1, next]);
    assert_eq!(asked(|a| a.service = Some("auth".into())), [10]);
    assert_eq!(asked(|a| a.q = Some("NEW".into())), [next]);
}

#[test]
fn a_damaged_segment_is_left_out_and_counted_and_the_others_are_served() {
    let folder = tempfile::tempdir().expect("folder");
    let metrics = Metrics::default();
    let store = open_with(folder.path(), u64::MAX, &metrics);
    store.append(vec![record(1, "game", "one")], 0).expect("appended");
    store.tick(2 * HOUR).expect("sealed");
    store.append(vec![record(2, "game", "two")], 0).expect("appended");
    let sealed = files(folder.path(), "sealed").remove(0);
    let mut bytes = fs::read(&sealed).expect("bytes");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&sealed, bytes).expect("written");
    assert_eq!(times(&store, &all()), [2]);
    assert_eq!(metrics.damaged.get(), 1);
    drop(store);
    fs::File::create(&sealed).and_then(|mut f| f.write_all(b"no segment")).expect("written");
    let store = open_with(folder.path(), u64::MAX, &metrics);
    assert_eq!(times(&store, &all()), [2]);
    assert_eq!(files(folder.path(), "damaged").len(), 1);
}

#[test]
fn old_segments_go_by_age_and_the_oldest_by_size() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path());
    let second = fill(&store, 0, "game", 0);
    let third = fill(&store, second, "game", 20 * HOUR);
    assert_eq!(files(folder.path(), "sealed").len(), 2);
    store.tick(25 * HOUR).expect("tick");
    assert_eq!(times(&store, &all()), (second..third).collect::<Vec<_>>());
    drop(store);

    let store = open_with(folder.path(), 1000, &Metrics::default());
    store.tick(25 * HOUR).expect("tick");
    assert_eq!(times(&store, &all()), [0; 0]);
    assert_eq!(files(folder.path(), "sealed").len(), 0);
}

#[test]
fn a_folder_is_used_by_one_server_at_a_time() {
    let folder = tempfile::tempdir().expect("folder");
    let first = open(folder.path());
    let retention = Retention { max_age: Duration::from_secs(1), max_bytes: 1 };
    let second = Store::open(folder.path(), retention, Metrics::default(), 0);
    assert!(matches!(second, Err(FolderError::InUse(_))));
    drop(first);
    open(folder.path());
}

#[test]
fn a_follower_gets_what_is_there_and_then_what_comes_without_a_gap() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path());
    store.append(vec![record(1, "game", "one")], 0).expect("appended");
    let (found, mut news) = store.follow(&all()).expect("followed");
    store.append(vec![record(2, "game", "two")], 0).expect("appended");
    assert_eq!(found.iter().map(|r| r.time).collect::<Vec<_>>(), [1]);
    assert_eq!(news.try_recv().expect("news")[0].time, 2);
}
