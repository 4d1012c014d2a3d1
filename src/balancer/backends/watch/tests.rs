//! A real file in a real folder, followed.

use std::path::Path;
use std::time::Duration;

use super::*;

/// A promise of the module; waiting longer is a failure.
const WITHIN: Duration = Duration::from_secs(10);

async fn changed(follower: &mut Follower) -> Vec<String> {
    let backends = tokio::time::timeout(WITHIN, follower.changed()).await.expect("no change was noticed");
    backends.iter().map(ToString::to_string).collect()
}

async fn keeps_still(follower: &mut Follower) {
    let change = tokio::time::timeout(Duration::from_millis(1500), follower.changed()).await;
    assert!(change.is_err(), "{change:?}");
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn every_way_to_change_the_file_is_noticed() {
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
async fn a_file_that_cannot_be_used_leaves_the_last_good_list_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    std::fs::write(&path, "a:1\n").unwrap();
    let mut follower = Follower::open(path.clone()).unwrap();

    std::fs::remove_file(&path).unwrap();
    keeps_still(&mut follower).await;
    std::fs::create_dir(&path).unwrap();
    keeps_still(&mut follower).await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"\x7fELF\0\xFF\n<html>\n").unwrap();
    keeps_still(&mut follower).await;
    assert_eq!(follower.backends().len(), 1);
    std::fs::write(&path, "a:1\nb:1\n").unwrap();
    assert_eq!(changed(&mut follower).await, ["a:1", "b:1"]);
}

#[tokio::test]
async fn an_edit_that_changes_no_backend_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    std::fs::write(&path, "a:1\n").unwrap();
    let mut follower = Follower::open(path.clone()).unwrap();
    std::fs::write(&path, "# the first\na:1\n").unwrap();
    keeps_still(&mut follower).await;
    std::fs::write(&path, "a:1 weight=2\n").unwrap();
    assert_eq!(changed(&mut follower).await, ["a:1 weight=2"]);
}

#[test]
fn a_first_list_that_cannot_be_used_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    let message = |path: &Path| Follower::open(path.to_owned()).err().unwrap().to_string();

    assert!(message(&path).contains("list.txt: check that it exists"));
    assert!(message(folder.path()).contains("not a regular file"));
    std::fs::write(&path, "\n<html>\n").unwrap();
    assert!(message(&path).contains("the first: line 2: <html>: no port"));
    std::fs::File::create(&path).unwrap().set_len(MAX_LIST_BYTES + 1).unwrap();
    assert!(message(&path).contains("larger than 16 MiB"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_without_a_writer_is_refused_and_not_waited_for() {
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
