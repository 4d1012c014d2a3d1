use super::*;

fn whole(target: PathBuf, text: &'static str) -> WholeFile {
    let (front, back) = text.split_at(text.len() / 2);
    let parts = vec![
        (front.len() as u64, Bytes::from_static(back.as_bytes())),
        (0, Bytes::from_static(front.as_bytes())),
    ];
    WholeFile { target, parts, modified: Some(SystemTime::UNIX_EPOCH) }
}

#[tokio::test]
async fn many_files_of_several_folders_get_their_names() {
    for durability in [Durability::Synced, Durability::Cached] {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let group_commit = GroupCommit::new(durability, 256);
        let files = (0..600).map(|index| {
            let target = folders[index % 2].path().join(format!("f{index}"));
            group_commit.finish(whole(target, "I am a file."))
        });
        for result in futures_util::future::join_all(files).await {
            assert_eq!(result.unwrap(), Finish::Named);
        }
        for index in 0..600 {
            let path = folders[index % 2].path().join(format!("f{index}"));
            assert_eq!(std::fs::read(&path).unwrap(), b"I am a file.");
            assert_eq!(path.metadata().unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
        }
    }
}

#[tokio::test]
async fn an_existing_name_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let group_commit = GroupCommit::new(Durability::Synced, 256);
    std::fs::write(folder.path().join("f"), "other").unwrap();
    std::os::unix::fs::symlink("elsewhere", folder.path().join("link")).unwrap();
    for name in ["f", "link"] {
        let result = group_commit.finish(whole(folder.path().join(name), "new")).await;
        assert_eq!(result.unwrap(), Finish::Declined);
    }
    assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"other");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let missing = group_commit.finish(whole(folder.path().join("missing/f"), "new")).await;
    assert_eq!(missing.unwrap(), Finish::Declined);
}
