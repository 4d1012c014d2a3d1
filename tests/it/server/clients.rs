//! Common download clients, if they are installed.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Server, pattern};

/// Whether a program is installed; prints a note if it is not.
fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Downloads a file of some MiB with each client, and then resumes a half file.
fn download(program: &str, whole: &[&str], resume: &[&str]) {
    if !is_installed(program) {
        return;
    }
    let server = Server::start();
    let bytes = pattern(9_000_001);
    server.put("large.iso", &bytes);
    let url = format!("http://{}/files/large.iso", server.program().address());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.iso");
    let arguments = |flags: &[&str]| flags.iter().map(|flag| flag.replace("URL", &url)).collect::<Vec<_>>();
    let run = |flags: &[&str]| {
        let arguments = arguments(flags);
        run(folder.path(), program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(std::fs::read(&path).unwrap() == bytes, "{program} {flags:?}");
    };
    run(whole);
    std::fs::write(&path, &bytes[..4_000_000]).unwrap();
    run(resume);
}

#[test]
fn curl() {
    download("curl", &["-sSfO", "URL"], &["-sSfO", "-C", "-", "URL"]);
}

#[test]
fn curl_over_a_unix_socket() {
    if !is_installed("curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("clients.sock");
    let server = Server::start_on(&["--unix-socket", socket.to_str().unwrap()]);
    let bytes = pattern(1_000_001);
    server.put("large.iso", &bytes);
    let url = "http://localhost/large.iso";
    run(folder.path(), "curl", &["-sSfO", "--unix-socket", socket.to_str().unwrap(), url]);
    assert!(std::fs::read(folder.path().join("large.iso")).unwrap() == bytes);
}

#[test]
fn wget() {
    download("wget", &["-q", "URL"], &["-q", "-c", "URL"]);
}

#[test]
fn aria2() {
    let flags = ["-x8", "-s8", "-k1M", "--quiet", "--no-conf", "--allow-overwrite=true"];
    let whole = [&flags[..], &["URL"]].concat();
    let resume = [&flags[..], &["-c", "URL"]].concat();
    download("aria2c", &whole, &resume);
}
