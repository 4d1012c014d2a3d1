use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn read(root: &Path, path: &str) -> Result<String, Errno> {
    let root = File::open(root).unwrap();
    let mut text = String::new();
    match File::from(open(root.as_fd(), path.as_bytes(), READ)?).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(_) => Ok("directory".to_owned()),
    }
}

#[test]
fn only_links_beneath_the_root_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("pool/v2/deep")).unwrap();
    std::fs::write(root.join("pool/v2/a"), "a").unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    for (target, link) in [
        ("pool/v2/a", "latest"),
        ("v2", "pool/stable"),
        ("../../../pool/./stable//a", "pool/v2/deep/up"),
        ("pool/v2/deep/..", "dots"),
        ("pool/v2/", "slash"),
        (".", "here"),
        ("../secret", "out"),
        ("../../../../secret", "pool/v2/out"),
        ("/etc/passwd", "absolute"),
        ("loop", "loop"),
        ("pong", "ping"),
        ("ping", "pong"),
        ("nothing", "broken"),
        ("../root/pool/v2/a", "out-and-in"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    for path in
        ["pool/v2/a", "latest", "pool/stable/a", "pool/v2/deep/up", "dots/a", "slash/a", "here/here/latest"]
    {
        assert_eq!(read(&root, path).as_deref(), Ok("a"), "{path}");
    }
    for path in ["pool/stable", "dots", ".", "here"] {
        assert_eq!(read(&root, path).as_deref(), Ok("directory"), "{path}");
    }
    for (path, error) in [
        ("out", Errno::XDEV),
        ("pool/v2/out", Errno::XDEV),
        ("out-and-in", Errno::XDEV),
        ("absolute", Errno::XDEV),
        ("loop", Errno::LOOP),
        ("ping", Errno::LOOP),
        ("broken", Errno::NOENT),
        ("pool/nothing/a", Errno::NOENT),
        ("latest/a", Errno::NOTDIR),
        ("pool/v2/a/b", Errno::NOTDIR),
    ] {
        assert_eq!(read(&root, path), Err(error), "{path}");
    }
}

#[test]
fn a_path_with_too_many_directories_counts_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let deep = |depth| folder.path().join(vec!["d"; depth].join("/"));
    std::fs::create_dir_all(deep(MAX_DEPTH + 1)).unwrap();
    std::fs::write(deep(MAX_DEPTH).join("file"), "deep").unwrap();
    std::fs::write(deep(MAX_DEPTH + 1).join("file"), "deeper").unwrap();
    let path = |depth| format!("{}/file", vec!["d"; depth].join("/"));
    assert_eq!(read(folder.path(), &path(MAX_DEPTH)).as_deref(), Ok("deep"));
    assert_eq!(read(folder.path(), &path(MAX_DEPTH + 1)), Err(Errno::NAMETOOLONG));
}
