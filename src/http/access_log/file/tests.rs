use std::sync::mpsc::sync_channel;

use super::*;

/// Writes these lines as the thread does, and returns the number of lost lines.
fn write(log: &mut LogFile, lines: &[&str]) -> u64 {
    let (sender, messages) = sync_channel(WAITING);
    let lost = AtomicU64::new(0);
    for line in lines {
        sender.send(Message::Line((*line).to_owned())).unwrap();
    }
    let (done, mut is_done) = oneshot::channel();
    sender.send(Message::Flush(done)).unwrap();
    drop(sender);
    log.checked = None;
    write_lines(&messages, log, &lost);
    assert_eq!(is_done.try_recv(), Ok(()));
    lost.into_inner()
}

#[test]
fn a_renamed_log_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut log = LogFile::open(&path).unwrap();
    assert_eq!(write(&mut log, &["old\n"]), 0);
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    assert_eq!(write(&mut log, &["new\n"]), 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
}

#[test]
fn a_log_that_cannot_be_opened_again_keeps_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let [before, after] = ["before", "after"].map(|name| folder.path().join(name));
    std::fs::create_dir(&before).unwrap();
    let mut log = LogFile::open(&before.join("access.log")).unwrap();
    std::fs::rename(&before, &after).unwrap();
    assert_eq!(write(&mut log, &["a\n", "b\n"]), 0);
    assert_eq!(std::fs::read_to_string(after.join("access.log")).unwrap(), "a\nb\n");
    std::fs::create_dir(&before).unwrap();
    assert_eq!(write(&mut log, &["c\n"]), 0);
    assert_eq!(std::fs::read_to_string(before.join("access.log")).unwrap(), "c\n");
}

#[test]
fn lines_of_a_removed_log_are_counted_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("logs");
    std::fs::create_dir(&place).unwrap();
    let mut log = LogFile::open(&place.join("access.log")).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    assert_eq!(write(&mut log, &["a\n", "b\n"]), 2);
    std::fs::create_dir(&place).unwrap();
    assert_eq!(write(&mut log, &["c\n"]), 0);
}

#[test]
fn a_log_is_opened_again_on_request_and_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut log = LogFile::open(&path).unwrap();
    let (sender, messages) = sync_channel(WAITING);
    sender.send(Message::Line("old\n".to_owned())).unwrap();
    sender.send(Message::Reopen).unwrap();
    sender.send(Message::Line("new\n".to_owned())).unwrap();
    drop(sender);
    // The check for a rename is not due.
    log.checked = Some(Instant::now() + Duration::from_hours(1));
    let renamed = folder.path().join("access.log.1");
    std::fs::rename(&path, &renamed).unwrap();
    write_lines(&messages, &mut log, &AtomicU64::new(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(renamed).unwrap(), "old\n");
}

#[test]
fn standard_streams_are_duplicated() {
    for path in ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"] {
        let mut log = LogFile::open(Path::new(path)).unwrap();
        assert_eq!(log.identity, None, "{path}");
        log.reopen(Instant::now());
        assert!(!log.is_warned);
    }
}
