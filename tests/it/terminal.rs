//! SIGHUP does not end a service, unless the service had a terminal that was closed.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use rustix::pty::{self, OpenptFlags};

use super::support::http;
use super::support::misbehaving::{Script, content};
use super::support::program::{Program, fingerpost};

/// A pseudo-terminal. Dropping it hangs up the terminal, like closing a window.
struct Terminal {
    master: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let master = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        Self { master }
    }

    fn path(&self) -> String {
        pty::ptsname(&self.master, Vec::new()).unwrap().into_string().unwrap()
    }

    /// Starts `fingerpost` in a new session with this terminal. `setup` is shell code that runs before it.
    fn start(&self, folder: &Path, setup: &str, arguments: &str) -> Program {
        // The first terminal that the leader of a session opens becomes the terminal of the session.
        let script = format!("{setup} exec \"$0\" {arguments} < {}", self.path());
        let binary = fingerpost().get_program().to_owned();
        let shell: [&OsStr; 4] = ["sh".as_ref(), "-c".as_ref(), script.as_ref(), &binary];
        // The tests may run where SIGHUP is ignored, which every process inherits.
        let mut command = Command::new("setsid");
        command
            .args(["env", "--default-signal=HUP"])
            .args(shell)
            .current_dir(folder)
            .stderr(std::process::Stdio::piped());
        Program::spawn_as_it_is(&mut command)
    }
}

/// A folder with a list and a served folder, and the commands that run in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("files")).unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    folder
}

const SERVICES: [&str; 2] = ["balancer --host 127.0.0.1", "server --host 127.0.0.1"];

#[test]
fn a_service_ends_with_its_terminal() {
    for arguments in SERVICES {
        let (folder, terminal) = (folder(), Terminal::open());
        let mut service = terminal.start(folder.path(), "", arguments);
        service.port();
        drop(terminal);
        let ended = service.wait();
        assert!(ended.success(), "{arguments}: {ended:?}");
        assert!(service.stdout().contains("Interrupt received"), "{arguments}");
    }
}

#[test]
fn a_service_with_an_open_terminal_survives_a_hangup() {
    for arguments in SERVICES {
        let (folder, terminal) = (folder(), Terminal::open());
        let mut service = terminal.start(folder.path(), "", arguments);
        let address = service.address();
        service.signal(Signal::HUP);
        // Longer than the time until the last check of the terminal.
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(service.is_running(), "{arguments}");
        assert!(http::get(address, "/plshelp.txt").status >= 200, "{arguments}");
        drop(terminal);
        assert!(service.wait().success(), "{arguments}");
    }
}

#[test]
fn a_service_without_a_terminal_survives_a_hangup() {
    for arguments in SERVICES {
        let folder = folder();
        let mut service = Program::spawn(
            Command::new("setsid")
                .arg(fingerpost().get_program())
                .args(arguments.split(' '))
                .current_dir(folder.path()),
        );
        let address = service.address();
        service.signal(Signal::HUP);
        assert!(http::get(address, "/plshelp.txt").status >= 200, "{arguments}");
        assert!(service.is_running(), "{arguments}");
    }
}

#[test]
fn nohup_keeps_every_program_alive() {
    for arguments in ["up", SERVICES[0], SERVICES[1]] {
        let (folder, terminal) = (folder(), Terminal::open());
        let mut program = terminal.start(folder.path(), "trap '' HUP;", arguments);
        let address = program.address();
        drop(terminal);
        program.signal(Signal::HUP);
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(http::get(address, "/plshelp.txt").status >= 200, "{arguments}");
        assert!(program.is_running(), "{arguments}");
        program.signal(Signal::TERM);
        assert!(program.wait().success(), "{arguments}");
    }
}

#[test]
fn the_progress_of_a_download_shows_host_and_port_of_each_server() {
    let server = Script::of(&content(200_000)).bytes_per_second(200_000).start();
    let (folder, terminal) = (folder(), Terminal::open());
    let arguments = format!("get {} 2>{}", server.url("/f"), terminal.path());
    let mut get = terminal.start(folder.path(), "", &arguments);
    assert!(get.wait().success());
    let mut shown = vec![0; 1 << 20];
    let length = rustix::io::read(&terminal.master, &mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown[..length]);
    assert!(shown.contains(&format!("  {} ", server.address())), "{shown:?}");
}

/// A test of the helper above.
#[test]
fn a_started_program_has_the_terminal() {
    let terminal = Terminal::open();
    let script = format!("exec < {}; : < /dev/tty && echo yes", terminal.path());
    let output = Command::new("setsid").args(["sh", "-c", &script]).output().unwrap();
    assert_eq!(output.stdout, b"yes\n", "{output:?}");
}
