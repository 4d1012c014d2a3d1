//! The command line: arguments, messages and exit codes.

use std::path::Path;
use std::process::Command;

use super::support::program::{Program, fingerpost};
use super::support::{http, wait_until};

/// The output and the exit code of a command.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn in_folder(folder: &Path, arguments: &[&str]) -> Ended {
    run(fingerpost().current_dir(folder).args(arguments))
}

#[test]
fn version() {
    assert!(run(fingerpost().arg("--version")).stdout.starts_with("fingerpost "));
}

#[test]
fn a_wrong_flag_is_named_and_the_code_is_2() {
    let ended = run(fingerpost().args(["balancer", "--prot", "80"]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("--prot") && ended.stderr.contains("--port"), "{}", ended.stderr);
}

#[test]
fn the_error_for_too_few_open_files_names_the_remedy_and_a_low_limit_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let limited = |limit: &str, command: &str| {
        let binary = fingerpost().get_program().to_owned();
        let mut shell = Command::new("sh");
        let script = format!("ulimit {limit} && exec \"$0\" {command}");
        shell.args(["-c".as_ref(), script.as_ref(), binary.as_os_str()]).current_dir(folder.path());
        shell
    };
    for command in ["up", "server --root ."] {
        let ended = run(&mut limited("-n 20", command));
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("20 files and sockets") && ended.stderr.contains("ulimit -n"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    let up = Program::spawn(&mut limited("-Sn 20", "up"));
    up.port();
    // The defaults need more, but they are not configured, so there is no warning.
    let up = Program::spawn(&mut limited("-n 500", "up"));
    up.port();
    assert!(!up.stderr().contains("open files"), "{}", up.stderr());
    let mut chosen = limited("-n 500", "up");
    chosen.env("FINGERPOST__SERVER__MAX_CONNECTIONS", "20000");
    let up = Program::spawn(&mut chosen);
    up.wait_for_stderr("raise the hard limit");
    up.wait_for_stderr("limit=500");
}

#[test]
fn the_error_for_a_busy_port_names_the_process_that_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("files")).unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    let first = Program::start_in(folder.path(), ["server", "--host", "127.0.0.1"]);
    let port = first.port().to_string();
    let holder = format!("process {} (fingerpost) uses this port", first.pid());
    let admin = format!("127.0.0.1:{port}");
    for arguments in [
        ["balancer", "--port", &port],
        ["balancer", "--admin", &admin],
        ["server", "--port", &port],
        ["server", "--admin", &admin],
        ["up", "--port", &port],
    ] {
        let ended = in_folder(folder.path(), &arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}");
        assert!(ended.stderr.contains(&holder) && ended.stderr.contains(&port), "{}", ended.stderr);
    }
}

#[test]
fn up_raises_a_low_limit_of_open_files_to_the_need_of_all_its_programs() {
    let folder = tempfile::tempdir().unwrap();
    let binary = fingerpost().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c".as_ref(), "ulimit -Sn 300 && exec \"$0\" up --servers 1".as_ref(), binary.as_os_str()]);
    shell
        .env("FINGERPOST__BALANCER__MAX_CONNECTIONS", "100")
        .env("FINGERPOST__SERVER__MAX_CONNECTIONS", "100");
    shell.env("FINGERPOST__BALANCER__PROBE_CONCURRENCY", "1");
    let up = Program::spawn(shell.current_dir(folder.path()));
    up.port();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", up.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= 400, "100 clients of the balancer, and 100 of the server with two files each: {line}");
}

#[test]
fn a_path_that_is_not_utf8_is_an_error_that_names_the_flag() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let folder = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"n\xFF.list");
    std::fs::write(folder.path().join(name), "127.0.0.1:1\n").unwrap();
    for arguments in
        [["balancer", "--servers"], ["check", "--servers"], ["server", "--root"], ["up", "--root"]]
    {
        let ended = run(fingerpost().args(arguments).arg(name).current_dir(folder.path()));
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(arguments[1]) && ended.stderr.contains("UTF-8"), "{}", ended.stderr);
    }
}

#[test]
fn a_closed_log_pipe_does_not_affect_the_balancer() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("balancer_server_list.txt");
    std::fs::write(&list, "127.0.0.1:1\nnonsense\n").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = fingerpost();
    command.args(["balancer", "--host", "127.0.0.1"]).current_dir(folder.path()).stderr(writer);
    let mut balancer = Program::spawn_as_it_is(&mut command);
    let admin = balancer.admin_address();
    // Each of these events is logged.
    wait_until("the probe to fail", || http::get(admin, "/api/v1/backends").text().contains("\"down\""));
    std::fs::write(&list, "127.0.0.1:1\n127.0.0.1:2\n").unwrap();
    wait_until("the new list", || http::get(admin, "/api/v1/backends").text().contains("127.0.0.1:2"));
    let metrics = http::get(admin, "/metrics").text();
    assert!(metrics.contains("fingerpost_panics_total 0\n"), "{metrics}");
    balancer.signal(rustix::process::Signal::TERM);
    assert!(balancer.wait().success());
}

#[test]
fn check_lists_the_servers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("balancer_server_list.txt"),
        "127.0.0.1:8081 weight=2\r\n# none\n\n[::1]:82",
    )
    .unwrap();
    let ended = in_folder(folder.path(), &["check"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    for line in
        ["balancer_server_list.txt: 2 servers", "    127.0.0.1:8081 weight=2", "    [::1]:82", "No problems."]
    {
        assert!(ended.stdout.lines().any(|own| own == line), "no {line:?} in:\n{}", ended.stdout);
    }
}

#[test]
fn check_reports_every_problem_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("list.txt"), "127.0.0.1:8081\nnonsense\n127.0.0.1:8081\n").unwrap();
    std::fs::write(
        folder.path().join("own.toml"),
        "[balancer]\nservers = 'list.txt'\nprot = 1\nport = 'x'\n",
    )
    .unwrap();
    let ended = in_folder(folder.path(), &["check", "--config", "own.toml"]);
    assert_eq!(ended.code, Some(1));
    for start in
        ["own.toml:3: balancer.prot:", "own.toml:4: ", "list.txt:2: nonsense:", "list.txt:3: http://127"]
    {
        assert!(
            ended.stdout.lines().any(|line| line.starts_with(start)),
            "no {start:?} in:\n{}",
            ended.stdout
        );
    }
    assert!(ended.stdout.ends_with("\n4 problems.\n"), "{}", ended.stdout);
}

#[test]
fn check_names_missing_files() {
    let folder = tempfile::tempdir().unwrap();
    let ended = in_folder(folder.path(), &["check"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("balancer_server_list.txt: check that it exists"), "{}", ended.stdout);
    assert!(ended.stdout.contains("cannot serve the folder files"), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("\n2 problems.\n"), "{}", ended.stdout);
    let ended = in_folder(folder.path(), &["check", "--config", "own.toml"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.starts_with("cannot read the configuration file own.toml: "), "{}", ended.stdout);
}

#[test]
fn check_reports_the_error_of_a_start_and_creates_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("files")).unwrap();
    std::fs::write(path("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    std::fs::write(path("file"), "").unwrap();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap();
    let _unix = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let (port, address) = (busy.port().to_string(), format!("'{busy}'"));
    for (program, key, value) in [
        ("server", "root", "'missing'"),
        ("server", "pages", "'missing'"),
        ("server", "access_log", "'missing/access.log'"),
        ("server", "access_log", "'files'"),
        ("server", "port", &*port),
        ("server", "admin", &*address),
        ("server", "unix_socket", "'socket'"),
        ("server", "unix_socket", "'file'"),
        ("server", "unix_socket", "'missing/socket'"),
        ("balancer", "servers", "'missing'"),
        ("balancer", "servers", "'files'"),
        ("balancer", "port", &*port),
        ("balancer", "admin", &*address),
        ("balancer", "unix_socket", "'socket'"),
        ("balancer", "state", "'file'"),
    ] {
        std::fs::write(path("own.toml"), format!("[{program}]\nhost = '127.0.0.1'\n{key} = {value}\n"))
            .unwrap();
        let checked = in_folder(folder.path(), &["check", "--config", "own.toml"]);
        assert_eq!(checked.code, Some(1), "{key} = {value}: {}", checked.stdout);
        assert!(checked.stdout.ends_with("\n1 problem.\n"), "{key} = {value}: {}", checked.stdout);
        let started = in_folder(folder.path(), &[program, "--config", "own.toml"]);
        assert_eq!(started.code, Some(1), "{key} = {value}");
        let error = started.stderr.lines().find_map(|line| line.strip_prefix("Error: ")).unwrap();
        assert!(checked.stdout.lines().any(|line| line == error), "{error}\n{}", checked.stdout);
    }
    std::fs::write(path("own.toml"), "[server]\naccess_log = 'a.log'\nunix_socket = 's'\ndigests = 'd'\n")
        .unwrap();
    let checked = in_folder(folder.path(), &["check", "server", "--config", "own.toml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(!["a.log", "s", "d"].into_iter().any(|name| path(name).exists()));
}

#[test]
fn check_reports_missing_trust_anchors_for_https_servers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "https://127.0.0.1:1\n").unwrap();
    let nowhere = folder.path().join("none.pem");
    std::fs::write(&nowhere, "").unwrap();
    let mut command = fingerpost();
    command.args(["check", "balancer"]).current_dir(folder.path());
    let ended = run(command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", folder.path()));
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("trust anchors"), "{}", ended.stdout);
}

#[test]
fn the_error_for_a_time_without_a_unit_contains_file_line_and_the_correct_text() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    std::fs::write(folder.path().join("own.toml"), "[balancer]\nprobe_interval = 2\n").unwrap();
    let message = "own.toml:2: balancer.probe_interval = 2: a time needs a unit; write \"2s\"";
    let checked = in_folder(folder.path(), &["check", "--config", "own.toml"]);
    assert!(checked.stdout.lines().any(|line| line == message), "{}", checked.stdout);
    let started = in_folder(folder.path(), &["balancer", "--config", "own.toml"]);
    assert_eq!((started.code, started.stderr), (Some(1), format!("Error: {message}\n")));
    let flag = in_folder(folder.path(), &["balancer", "--probe-interval", "2"]);
    assert_eq!(flag.code, Some(2));
    assert!(flag.stderr.contains("a time needs a unit; write \"2s\""), "{}", flag.stderr);
    let mut variable = fingerpost();
    variable.arg("balancer").current_dir(folder.path()).env("FINGERPOST__BALANCER__PROBE_INTERVAL", "2");
    let variable = run(&mut variable);
    assert!(variable.stderr.contains("balancer.probe_interval = \"2\": a time needs"), "{}", variable.stderr);
}

#[test]
fn check_names_an_invalid_variable() {
    let folder = tempfile::tempdir().unwrap();
    let ended =
        run(fingerpost().current_dir(folder.path()).arg("check").env("FINGERPOST__BALANCER__PORT", "many"));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("balancer.port"), "{}", ended.stdout);
}
