//! Tests with a real file.

use std::path::Path;
use std::time::Duration;

use super::*;

/// The time limit for the detection of a change on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);

async fn changed(follower: &mut Follower) -> Vec<String> {
    let backends = tokio::time::timeout(WITHIN, follower.changed()).await.expect("no change was detected");
    backends.iter().map(ToString::to_string).collect()
}

async fn stays_unchanged(follower: &mut Follower) {
    let change = tokio::time::timeout(Duration::from_millis(1500), follower.changed()).await;
    assert!(change.is_err(), "{change:?}");
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn every_kind_of_change_of_the_file_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    std::fs::write(&path, "a:1").unwrap();
    let mut follower = Follower::open(path.clone()).unwrap();
    assert_eq!(follower.backends().len(), 1);

    std::fs::write(&path, "a:1\nb:1\n").unwrap();
    assert_eq!(changed(&mut follower).await, ["a:1", "b:1"]);
    replace(&path, "c:1\nwrong\nb:1\n");
    assert_eq!(changed(&mut follower).await, ["c:1", "b:1"]);
    std::fs::write(&path, "").unwrap();
    assert!(changed(&mut follower).await.is_empty());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "d:1\n").unwrap();
    assert_eq!(changed(&mut follower).await, ["d:1"]);
    assert_eq!(follower.backends().len(), 1);
}

#[tokio::test]
async fn the_last_good_list_stays_active_while_the_file_is_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    std::fs::write(&path, "a:1\n").unwrap();
    let mut follower = Follower::open(path.clone()).unwrap();

    std::fs::remove_file(&path).unwrap();
    stays_unchanged(&mut follower).await;
    std::fs::create_dir(&path).unwrap();
    stays_unchanged(&mut follower).await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"\x7fELF\0\xFF\n<html>\n").unwrap();
    stays_unchanged(&mut follower).await;
    assert_eq!(follower.backends().len(), 1);
    std::fs::write(&path, "a:1\nb:1\n").unwrap();
    assert_eq!(changed(&mut follower).await, ["a:1", "b:1"]);
}

#[tokio::test]
async fn an_edit_that_changes_no_backend_is_not_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    std::fs::write(&path, "a:1\n").unwrap();
    let mut follower = Follower::open(path.clone()).unwrap();
    std::fs::write(&path, "# the first\na:1\n").unwrap();
    stays_unchanged(&mut follower).await;
    std::fs::write(&path, "a:1 weight=2\n").unwrap();
    assert_eq!(changed(&mut follower).await, ["a:1 weight=2"]);
}

#[test]
fn an_unusable_first_list_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    let message = |path: &Path| Follower::open(path.to_owned()).err().unwrap().to_string();

    assert!(message(&path).contains("list.txt: check that it exists"));
    assert!(message(folder.path()).contains("not a regular file"));
    std::fs::write(&path, "\n<html>\n").unwrap();
    assert!(message(&path).contains("first problem: line 2: <html>: no port"));
    std::fs::File::create(&path).unwrap().set_len(MAX_LIST_BYTES + 1).unwrap();
    assert!(message(&path).contains("larger than 16 MiB"));
}

#[test]
fn a_pipe_without_a_writer_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(matches!(read(&path), Err(ListError::NotAFile { .. })));
}
