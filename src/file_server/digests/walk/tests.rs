use std::os::unix::fs::symlink;

use super::*;

fn files(root: &Root) -> Vec<String> {
    let mut walk = Walk::new();
    let mut files = Vec::new();
    loop {
        match walk.step(root) {
            WalkStep::File(path) => files.push(String::from_utf8(path).unwrap()),
            WalkStep::Passed | WalkStep::Failed | WalkStep::LeftOut => {}
            WalkStep::End => break,
        }
    }
    files.sort();
    files
}

#[test]
fn every_served_file_is_found_once() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["a", "sub/b", "sub/deep/c", ".hidden", ".git/config", "sub/.part"] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    symlink(".", folder.path().join("sub/loop")).unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let root = Root::open(folder.path()).unwrap();
    assert_eq!(files(&root), ["a", "sub/b", "sub/deep/c", "sub/loop"]);
}

#[test]
fn folders_below_the_maximum_depth_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join(vec!["d"; DEEPEST + 3].join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "x").unwrap();
    std::fs::write(folder.path().join("d/file"), "x").unwrap();
    assert_eq!(files(&Root::open(folder.path()).unwrap()), ["d/file"]);
}
