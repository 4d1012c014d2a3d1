//! `fingerpost get` and existing outputs: links, descriptors, mounts, modes, files of other programs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use super::support::downloads::Downloads;
use super::support::misbehaving::{FileServer, Script, content};
use super::support::wait_until;

/// Runs a shell script in which `$GET` stands for `fingerpost get`.
fn shell(downloads: &Downloads, script: &str) -> Output {
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).current_dir(downloads.path());
    command.env("GET", format!("{} get", env!("CARGO_BIN_EXE_fingerpost"))).output().unwrap()
}

#[test]
fn a_link_to_a_descriptor_stays_and_the_descriptor_is_written_to() {
    let file = content(300_000);
    let url = Script::of(&file).start();
    let url = url.url("/f");
    let downloads = Downloads::new();
    std::fs::create_dir(downloads.path().join("dev")).unwrap();
    let link = |name: &str, to: &str| symlink(to, downloads.path().join("dev").join(name)).unwrap();
    link("stdout", "/proc/self/fd/1");
    link("stderr", "/proc/self/fd/2");
    link("three", "/dev/fd/3");
    link("far", "three");
    for (output, redirection, expected) in [
        ("/dev/fd/3", "3>out", file.clone()),
        ("dev/three", "3>out", file.clone()),
        ("dev/far", "3>>out", [file.as_slice(), &file].concat()),
        ("dev/stderr", "2>out", file.clone()),
        ("dev/stdout", ">out", file.clone()),
    ] {
        let output = shell(&downloads, &format!("$GET -s {url} -o {output} {redirection}"));
        assert!(output.status.success(), "{output:?}");
        assert!(downloads.read("out") == expected, "{redirection}");
    }
    // The descriptor's position advances: later output follows the file.
    assert!(
        shell(&downloads, &format!("{{ $GET -s {url} -o dev/three; echo end >&3; }} 3>out")).status.success()
    );
    assert!(downloads.read("out") == [file.as_slice(), b"end\n"].concat());
    for name in ["stdout", "stderr", "three", "far"] {
        assert!(downloads.path().join("dev").join(name).is_symlink(), "{name}");
    }
    // A closed descriptor is reported before any request, also for standard output.
    for (output, redirection) in
        [("-", ">&-"), ("/dev/stdout", ">&-"), ("dev/three", "3>&-"), ("/dev/fd/77", "")]
    {
        let output = shell(&downloads, &format!("$GET -s {url} -o {output} {redirection}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(23) && stderr.contains("cannot write to"), "{output:?}");
    }
    let output = shell(&downloads, &format!("$GET {url} -o g >&-"));
    assert!(output.status.success() && downloads.read("g") == file, "{output:?}");
}

#[test]
fn a_link_to_a_file_stays_and_the_file_keeps_its_mode() {
    let file = content(5000);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    let path = |name: &str| downloads.path().join(name);
    std::fs::create_dir(path("real")).unwrap();
    std::fs::write(path("real/target"), "old").unwrap();
    std::fs::set_permissions(path("real/target"), std::fs::Permissions::from_mode(0o750)).unwrap();
    symlink("real/target", path("link")).unwrap();
    symlink("real/new", path("dangling")).unwrap();
    for name in ["link", "dangling"] {
        downloads.get(&[&server.url("/f"), "-o", name]).ended_with(0);
        assert!(path(name).is_symlink() && downloads.read(name) == file, "{name}");
    }
    downloads.get(&[&server.url("/link"), "--no-resume"]).ended_with(0);
    assert!(path("link").is_symlink());
    assert_eq!(path("real/target").metadata().unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::read_dir(path("real")).unwrap().count(), 2);
}

#[test]
fn the_replacement_of_a_private_file_is_private_from_the_start() {
    let server = Script::of(&content(300_000)).stalls_at(100_000).start();
    let downloads = Downloads::new();
    std::fs::write(downloads.path().join("f"), "secret").unwrap();
    std::fs::set_permissions(downloads.path().join("f"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut running = downloads.start(&[&server.url("/f")]);
    wait_until("a part file", || downloads.names().contains(&"f.part".to_owned()));
    let mode = downloads.path().join("f.part").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    running.kill();
}

#[test]
fn a_part_file_of_another_program_is_left_alone() {
    let file = content(300_000);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    let precious = b"precious".repeat(1000);
    std::fs::write(downloads.path().join("f.part"), &precious).unwrap();
    for more in [&[][..], &["--no-resume"]] {
        let outcome = downloads.get(&[&[server.url("/f").as_str()], more].concat());
        assert!(
            outcome.ended_with(23).stderr().contains("may belong to another program"),
            "{}",
            outcome.stderr()
        );
        assert_eq!(downloads.names(), ["f.part"]);
        assert!(downloads.read("f.part") == precious);
    }
    downloads.get(&[&server.url("/f"), "-o", "g"]).ended_with(0);
    // A part file of `get` is recognised, even if the run was killed early.
    let downloads = Downloads::new();
    let slow = Script::of(&file).stalls_at(200_000).start();
    let mut running = downloads.start(&[&slow.url("/f"), "--checkpoint-interval", "3600"]);
    let part = downloads.path().join("f.part");
    wait_until("some bytes", || part.metadata().is_ok_and(|part| part.len() > 0));
    running.kill();
    slow.becomes(Script::of(&file));
    downloads.get(&[&slow.url("/f")]).ended_with(0);
    assert_eq!(downloads.names(), ["f"]);
}

#[test]
fn a_bind_mount_is_written_to() {
    let file = content(300_000);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    std::fs::write(downloads.path().join("outside"), vec![7; 400_000]).unwrap();
    std::fs::write(downloads.path().join("f"), "").unwrap();
    let map_root = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let script =
        format!("unshare {map_root} sh -c 'mount --bind outside f || exit 77; $GET -s {}'", server.url("/f"));
    let output = shell(&downloads, &script);
    if !output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("Error") {
        println!("not allowed to mount anything");
        return;
    }
    assert!(output.status.success(), "{output:?}");
    assert!(downloads.read("outside") == file);
    assert_eq!(downloads.names(), ["f", "outside"]);
}

#[test]
fn a_bind_mount_in_a_read_only_folder_is_written_to() {
    let file = content(300_000);
    let downloads = Downloads::new();
    std::fs::create_dir(downloads.path().join("folder")).unwrap();
    std::fs::write(downloads.path().join("outside"), vec![7; 400_000]).unwrap();
    std::fs::write(downloads.path().join("folder/f"), "").unwrap();
    let map_root = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let get = |server: &FileServer| {
        let mounts =
            "mount --bind folder folder && mount -o remount,bind,ro folder && mount --bind outside folder/f";
        let script = format!(
            "unshare {map_root} sh -c '({mounts}) || exit 77; $GET -s {} -o folder/f --retry 0 --checkpoint-interval 0.01'",
            server.url("/f")
        );
        shell(&downloads, &script)
    };
    let broken = Script::of(&file).bytes_per_second(1_000_000).closes_at(200_000).start();
    let output = get(&broken);
    if !output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("Error") {
        println!("not allowed to mount anything");
        return;
    }
    // A failure changes nothing.
    assert_eq!(output.status.code(), Some(18), "{output:?}");
    assert!(downloads.read("outside") == vec![7; 400_000]);
    let output = get(&Script::of(&file).start());
    assert!(output.status.success(), "{output:?}");
    assert!(downloads.read("outside") == file);
    assert_eq!(downloads.names(), ["folder", "outside"]);
}
