//! `fingerpost get` and the disk: folders without write permission, full disks, names that are too long. It
//! exits with 23, creates nothing under the final name, and resumes once there is space.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sha2::Sha256;

use super::support::digits;
use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, Framing, Script, Times, content};
use super::support::{wait_for, wait_until};

/// The user id of an unprivileged user without a name.
const NOBODY: u32 = 65_534;

#[test]
fn an_output_that_cannot_be_written_ends_with_23() {
    let server = Script::of(&content(10_000)).start();
    let downloads = Downloads::new();
    let missing = downloads.path().join("missing/f");
    downloads.get(&[&server.url("/f"), "-o", missing.to_str().unwrap()]).ended_with(23);
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn a_report_that_cannot_be_printed_ends_with_23() {
    let server = Script::of(b"I am a file.").start();
    for (path, code) in [("/f", 23), ("/missing", 22)] {
        if path == "/missing" {
            server.becomes(Script::of(b"").answers(404, vec![]));
        }
        let downloads = Downloads::new();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = downloads.command(&[&server.url(path), "--json"]).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("cannot write to standard output: No space left on device"), "{stderr}");
        assert_eq!(downloads.names().len(), usize::from(code == 23));
    }
}

#[test]
fn names_too_long_for_a_journal_are_refused_at_once() {
    let file = content(200_000);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    for length in [243, 255, 300] {
        let outcome = downloads.get(&[&server.url("/f"), "-o", &"n".repeat(length)]);
        assert!(outcome.ended_with(23).stderr().contains("File name too long"), "{}", outcome.stderr());
    }
    assert_eq!(downloads.names(), [""; 0]);
    // The longest name that fits, including the journal: the slow server leaves time for a checkpoint.
    let server = Script::of(&file).bytes_per_second(1_000_000).start();
    let name = "n".repeat(242);
    downloads.get(&[&server.url("/f"), "-o", &name, "--checkpoint-interval", "0.01"]).ended_with(0);
    assert_eq!(downloads.names(), [name]);
    // A name that is too long in the address is truncated.
    let downloads = Downloads::new();
    let url = server.url(&format!("/{}", "m".repeat(300)));
    downloads.get(&[&url, "--checkpoint-interval", "0.01"]).ended_with(0);
    assert_eq!(downloads.names().len(), 1);
}

#[test]
fn a_folder_without_write_permission_ends_with_23() {
    let server = Script::of(&content(10_000)).start();
    let downloads = Downloads::new();
    let program = tempfile::tempdir().unwrap();
    let mut command = downloads.command(&[&server.url("/f")]);
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere, so another user runs a copy of the program in a folder that it can access.
        let copy = program.path().join("fingerpost");
        std::fs::copy(env!("CARGO_BIN_EXE_fingerpost"), &copy).unwrap();
        std::fs::set_permissions(program.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        command = Command::new(copy);
        command.args(["get", &server.url("/f")]).current_dir(downloads.path()).uid(NOBODY).gid(NOBODY);
    }
    std::fs::set_permissions(downloads.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let output = command.output().unwrap();
    std::fs::set_permissions(downloads.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(23), "{stderr}");
    assert!(stderr.contains("Permission denied"), "{stderr}");
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn a_limit_on_the_size_of_files_ends_with_23() {
    let file = content(4 << 20);
    let server = Script::of(&file).framing(Framing::Chunked).start();
    let downloads = Downloads::new();
    let mut command = Command::new("sh");
    command.current_dir(downloads.path()).arg("-c").arg(format!(
        "ulimit -f 2048; exec {} get {}",
        env!("CARGO_BIN_EXE_fingerpost"),
        server.url("/f")
    ));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(23), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!downloads.names().contains(&"f".to_owned()));
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
}

#[test]
fn a_folder_as_output_is_refused_before_any_request() {
    let server = Script::of(&content(10_000)).start();
    let downloads = Downloads::new();
    std::fs::create_dir(downloads.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("folder", downloads.path().join("link")).unwrap();
    let _socket = UnixListener::bind(downloads.path().join("socket")).unwrap();
    for name in ["folder", "link", "socket"] {
        let outcome = downloads.get(&[&server.url("/f"), "-o", name]);
        assert!(outcome.ended_with(23).stderr().contains(&format!("Error: {name} is ")), "{outcome:?}");
    }
    assert_eq!(server.exchanges(), []);
    assert_eq!(downloads.names(), ["folder", "link", "socket"]);
}

#[test]
fn devices_and_pipes_are_written_to_and_not_replaced() {
    let file = content(400_000);
    let breaks_once = Script::of(&file).fault(Fault::ClosesAt(150_000), Times::Next(1));
    let downloads = Downloads::new();
    let pipe = pipe_in(&downloads);
    for (script, expected) in [(breaks_once.clone(), file.clone()), (Script::of(b""), Vec::new())] {
        let server = script.start();
        let reading = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        downloads.get_quickly(&[&server.url("/f"), "-o", "pipe"]).ended_with(0);
        assert!(reading.join().unwrap() == expected);
    }
    assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo());
    // A link to a device leads to the device.
    let link = downloads.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    downloads.get_quickly(&[&breaks_once.start().url("/f"), "-o", "null"]).ended_with(0);
    let wrong = format!("sha-256={}", "0".repeat(64));
    let server = Script::of(&file).start();
    let outcome = downloads.get_quickly(&[&server.url("/f"), "-o", "null", "--checksum", &wrong]);
    assert!(outcome.ended_with(32).stderr().contains("Error: null "), "{}", outcome.stderr());
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/dev/null"));
    assert_eq!(downloads.names(), ["null", "pipe"]);
    let server = Script::of(&file).start();
    let outcome = downloads.get(&[&server.url("/f"), "-o", "/dev/stdout"]);
    assert!(outcome.ended_with(0).stdout_bytes() == file);
}

/// Creates a named pipe in the folder of `downloads`.
fn pipe_in(downloads: &Downloads) -> PathBuf {
    let pipe = downloads.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}

#[test]
fn a_pipe_without_a_reader_does_not_block_the_end() {
    for size in [0, 1000, 200_000, 30 << 20] {
        let server = Script::of(&content(size)).start();
        let url = server.url("/f");
        let downloads = Downloads::new();
        pipe_in(&downloads);
        for more in [&[][..], &["--json"]] {
            let get = [&[url.as_str(), "-o", "pipe", "--max-time", "0.3"], more].concat();
            assert_eq!(downloads.start(&get).wait().code(), Some(28), "{size} bytes, {more:?}");
        }
        let mut running = downloads.start(&[&url, "-o", "pipe"]);
        wait_until("a question", || server.exchanges().len() > 2);
        running.signal(Signal::INT);
        assert_eq!(running.wait().code(), Some(130), "{size} bytes");
    }
}

#[test]
fn a_pipe_with_a_stalled_reader_does_not_block_the_end() {
    let server = Script::of(&content(30 << 20)).start();
    let downloads = Downloads::new();
    let pipe = pipe_in(&downloads);
    // The reader reads nothing and keeps the pipe open.
    let _reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let (_unread, output) = std::io::pipe().unwrap();
    for name in ["pipe", "-"] {
        let mut command = downloads.command(&[&server.url("/f"), "-o", name, "--max-time", "0.3"]);
        let mut limited = command.stdout(output.try_clone().unwrap()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(wait_for("its end", || limited.try_wait().unwrap()).code(), Some(28));
        let asked = server.exchanges().len();
        let mut command = downloads.command(&[&server.url("/f"), "-o", name]);
        let mut stopped = command.stdout(output.try_clone().unwrap()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("a question", || server.exchanges().len() > asked);
        kill_process(Pid::from_child(&stopped), Signal::INT).unwrap();
        assert_eq!(wait_for("its end", || stopped.try_wait().unwrap()).code(), Some(130));
    }
}

#[test]
fn a_file_that_is_known_to_be_wrong_is_not_written() {
    let server = Script::of(&content(1000)).start();
    let digest = format!("sha-256={}", digits::<Sha256>(b"another"));
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&server.url("/f"), "-o", "-", "--checksum", &digest]);
    assert_eq!(outcome.ended_with(32).stdout_bytes(), b"");
}

#[test]
fn the_reader_of_a_pipe_sees_the_end_of_a_failed_download() {
    let server = Script::of(b"").answers(404, vec![]).start();
    let downloads = Downloads::new();
    let pipe = pipe_in(&downloads);
    let reading = std::thread::spawn(move || std::fs::read(pipe).unwrap());
    // Only a reader that waits already sees the end.
    wait_until("the reader's end", || {
        downloads.get(&[&server.url("/f"), "-o", "pipe"]).ended_with(22);
        reading.is_finished()
    });
    assert_eq!(reading.join().unwrap(), b"");
}

/// Runs a script in a folder on a 3 MiB file system. Returns its output, or `None` if this user may not mount
/// a file system.
fn on_a_small_disk(folder: &Path, script: &str) -> Option<String> {
    let map_root = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let run = |script: &str| {
        Command::new("unshare").args([map_root, "sh", "-c", script]).current_dir(folder).output().ok()
    };
    let mount = "mount -t tmpfs -o size=3m none disk && cd disk";
    std::fs::create_dir(folder.join("disk")).unwrap();
    run(mount).filter(|output| output.status.success())?;
    let output = run(&format!("{mount}; {script}"))?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn after_a_size_beyond_the_free_space_the_next_server_is_asked() {
    let file = content(1 << 20);
    let huge = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 9000000000000000\r\n\r\n";
    let (wrong, right) = (Script::of(b"").sends(huge).start(), Script::of(&file).start());
    let link = format!("Link: <{}>; rel=duplicate", right.url("/f"));
    let balancer = Script::redirect(&wrong.url("/f"), &[&link]).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    let downloads = Downloads::new();
    let outcome = downloads.get_quickly(&[&Script::redirect(&wrong.url("/f"), &[]).start().url("/f")]);
    assert!(outcome.ended_with(23).stderr().contains("does not fit"), "{}", outcome.stderr());
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn few_descriptors_mean_fewer_files_at_a_time() {
    let server = Script::of(&content(200_000)).delays_head(std::time::Duration::from_millis(10)).start();
    let list: Vec<String> = (0..100).map(|index| server.url(&format!("/f{index}"))).collect();
    // The program can raise the soft limit, but not the hard limit.
    for limit in ["-Sn 64", "-n 64"] {
        let downloads = Downloads::new();
        std::fs::write(downloads.path().join("list"), list.join("\n")).unwrap();
        let mut command = Command::new("bash");
        let get = format!("ulimit {limit}; exec {} get -i list -j 128", env!("CARGO_BIN_EXE_fingerpost"));
        let output = command.arg("-c").arg(get).current_dir(downloads.path()).output().unwrap();
        assert!(output.status.success(), "{limit}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(downloads.names().len(), 101);
    }
}

#[test]
fn a_full_disk_ends_with_23_and_free_space_lets_it_resume() {
    let file = content(8 << 20);
    let announced = Script::of(&file).start();
    let streamed = Script::of(&file).framing(Framing::Chunked).start();
    let downloads = Downloads::new();
    let get = format!("{} get -s -o f --checkpoint-interval 0.01", env!("CARGO_BIN_EXE_fingerpost"));
    let (announced_url, streamed_url) = (announced.url("/f"), streamed.url("/f"));
    let script = format!(
        "{get} {announced_url}; echo \"code $?, files:\" *; \
         {get} {streamed_url}; echo \"code $?, final name:\" f?; \
         mount -o remount,size=20m . && {get} {streamed_url}; echo \"code $?, files:\" *; sha256sum f"
    );
    let Some(told) = on_a_small_disk(downloads.path(), &script) else {
        println!("not allowed to mount a disk: the limit on the size of files has to do");
        return;
    };
    // An announced size is compared with the free space before anything is written.
    assert!(told.contains("does not fit: it needs 8388608 bytes"), "{told}");
    assert!(told.contains("code 23, files: *"), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
    assert!(told.contains("code 23, final name: f?"), "{told}");
    assert!(told.contains("code 0, files: f\n"), "{told}");
    assert!(told.contains(&digits::<Sha256>(&file)), "{told}");
    assert!(announced.sent() < file.len(), "it was downloaded to the end");
}
