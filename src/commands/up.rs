//! `fingerpost up`: a balancer and several servers in one process, for a first look and for experiments with settings.
//! It listens on 127.0.0.1 only.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::{self, FutureExt};
use tempfile::TempDir;

use super::stop_at_signal;
use crate::balancer::expectation::Expectation;
use crate::balancer::probe::ProbeSettings;
use crate::balancer::program::BalancerProgram;
use crate::balancer::settings::BalancerSettings;
use crate::balancer::sources::{SourceAddress, SourceSettings};
use crate::cli::UpArguments;
use crate::engine::FleetSettings;
use crate::file_server::FileServer;
use crate::file_server::settings::ServerSettings;
use crate::hosting::{Addresses, Program, ProgramError, ProgramSettings};
use crate::http::access_log;
use crate::http::stop::{Interrupts, StopHandle};
use crate::systemd::PassedSockets;
use crate::telemetry::print_line;
use crate::{configuration, open_files};

const HOST: &str = "127.0.0.1";

const PROBE_FILE: &str = "plshelp.txt";

/// The probe file of a server whose root has none.
const BUILT_IN_PROBE: &[u8] = include_bytes!("../../files/plshelp.txt");

/// The files that are served if the current folder has no `files/`.
const SAMPLES: [(&str, &[u8]); 2] =
    [(PROBE_FILE, BUILT_IN_PROBE), ("hello.txt", include_bytes!("../../files/hello.txt"))];

/// The list or the sample files cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the list of servers to the folder for temporary files")]
struct ScratchFailure(#[source] io::Error);

/// The signal handlers cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals")]
struct SignalFailure(#[source] io::Error);

/// Runs `fingerpost up` until a signal stops it.
pub(super) fn command(arguments: &UpArguments) -> Result<(), ProgramError> {
    let mut raw =
        configuration::load(arguments.config.config.as_deref(), arguments.overrides(), Ok)?.settings;
    HOST.clone_into(&mut raw.server.host);
    raw.server.port = 0;
    raw.server.unix_socket = PathBuf::new();
    // Several servers cannot share one address.
    raw.server.admin = String::new();
    raw.server.register = String::new();
    // The printed addresses are opened in browsers.
    raw.server.listing = true;
    HOST.clone_into(&mut raw.balancer.host);
    raw.balancer.unix_socket = PathBuf::new();
    // The first look needs no engine.
    raw.balancer.fleet = String::new();
    let scratch = tempfile::Builder::new().prefix("fingerpost-").tempdir().map_err(ScratchFailure)?;

    let fleet = FleetSettings::try_from(raw.fleet)?;
    let mut server_settings = ServerSettings::try_from(raw.server)?;
    if arguments.root.is_none() && !server_settings.root.is_dir() {
        server_settings.root = write_samples(&scratch).map_err(ScratchFailure)?;
    }
    // The servers share the processors of this machine.
    server_settings.host.workers = 1;
    let balancer_settings = BalancerSettings::try_from(raw.balancer)?;
    let of_servers = server_settings.open_files().times(arguments.servers as u64);
    open_files::provide(balancer_settings.open_files().and(of_servers))?;
    let mut servers = (0..arguments.servers)
        .map(|_| FileServer::build(server_settings.clone(), &fleet, PassedSockets::default()))
        .collect::<Result<Vec<_>, _>>()?;

    let list = write_list(&scratch, &mut servers).map_err(ScratchFailure)?;
    let balancer_settings = BalancerSettings {
        sources: SourceSettings {
            addresses: vec![SourceAddress::File(list)],
            ..balancer_settings.sources.clone()
        },
        probes: ProbeSettings {
            expectation: probe_expectation(&balancer_settings.probes, &server_settings.root),
            ..balancer_settings.probes.clone()
        },
        ..balancer_settings
    };
    let mut balancer = BalancerProgram::build(balancer_settings, &fleet, PassedSockets::default())?;

    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::of_terminal().map_err(SignalFailure)?;
        actix::spawn(stop_at_signal(interrupts, stop.clone(), balancer.host().grace.subscribe()));
        for log in servers.iter_mut().map(|server| &server.host().log).chain([&balancer.host().log]) {
            access_log::reopen_on_signal(log.as_ref()).map_err(SignalFailure)?;
        }
        run(servers, balancer, &server_settings.root, &stop).await
    })
}

async fn run(
    servers: Vec<FileServer>,
    balancer: BalancerProgram,
    root: &Path,
    stop: &StopHandle,
) -> Result<(), ProgramError> {
    print_line(format_args!("Serving the folder {}", root.display()));
    let serving = servers.into_iter().zip(1..).map(|(server, number)| {
        let ready = move |bound: &Addresses| {
            for address in &bound.clients {
                print_line(format_args!("Server {number} at http://{address}/"));
            }
        };
        server.run(ready, stop.clone()).boxed_local()
    });
    // The servers start first, so that they can answer the first probes of the balancer.
    let mut all: Vec<_> = serving.collect();
    let ready = |bound: &Addresses| {
        for address in &bound.clients {
            print_line(format_args!("Balancer at http://{address}/"));
            print_line(format_args!(
                "To download through it: {} get http://{address}/plshelp.txt",
                own_command()
            ));
        }
        bound.announce();
    };
    all.push(balancer.run(ready, stop.clone()).boxed_local());
    // An error of one program ends all of them, like a stop.
    future::try_join_all(all).await.map(drop)
}

/// The configured content of the probe file, else the content of the served file. `None` if the content is not known.
fn probe_expectation(probes: &ProbeSettings, root: &Path) -> Option<Arc<Expectation>> {
    let path = probes.path.strip_prefix("/files").unwrap_or(&probes.path);
    let of_file = || Expectation::File { path: root.join(PROBE_FILE), default: BUILT_IN_PROBE };
    let is_known = path.strip_prefix('/') == Some(PROBE_FILE);
    probes.expectation.clone().or_else(|| is_known.then(|| Arc::new(of_file())))
}

/// The shell command that starts this program from any folder of this machine.
fn own_command() -> String {
    let Ok(path) = std::env::current_exe() else { return "fingerpost".to_owned() };
    command_for(&path, std::env::var_os("PATH").as_deref())
}

/// The name of the program if a shell finds the program by its name, else the quoted path.
fn command_for(program: &Path, search_path: Option<&OsStr>) -> String {
    let name = program.file_name().unwrap_or_default();
    let found = search_path
        .into_iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    let is_this = |found: PathBuf| found.canonicalize().is_ok_and(|found| found == program);
    let text = if found.is_some_and(is_this) { name } else { program.as_os_str() };
    shell_word(&text.to_string_lossy())
}

/// Quotes text for a shell, if necessary.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn write_samples(scratch: &TempDir) -> io::Result<PathBuf> {
    let folder = scratch.path().join("files");
    std::fs::create_dir(&folder)?;
    for (name, content) in SAMPLES {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(folder)
}

fn write_list(scratch: &TempDir, servers: &mut [FileServer]) -> io::Result<PathBuf> {
    let mut list = String::from("# Written by fingerpost up, for as long as it runs.\n");
    for address in servers.iter_mut().flat_map(|server| &server.host().addresses.clients) {
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{address}");
    }
    let path = scratch.path().join("balancer_server_list.txt");
    std::fs::write(&path, list)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_name_if_the_search_path_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        for place in ["first", "second with space"] {
            std::fs::create_dir(folder.join(place)).unwrap();
            std::fs::write(folder.join(place).join("fingerpost"), place).unwrap();
        }
        let (first, second) = (folder.join("first"), folder.join("second with space"));
        let both = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(command_for(&first.join("fingerpost"), Some(&both)), "fingerpost");
        let quoted = format!("'{}'", second.join("fingerpost").display());
        assert_eq!(command_for(&second.join("fingerpost"), Some(&both)), quoted);
        assert_eq!(command_for(&second.join("fingerpost"), None), quoted);
    }

    #[test]
    fn a_shell_reads_the_original_text_from_a_quoted_word() {
        for text in ["/usr/bin/fingerpost", "a b", "it's", "$HOME", "a\"b", "~", "", "*"] {
            let script = format!("printf %s {}", shell_word(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, text.as_bytes());
        }
        assert_eq!(shell_word("/usr/bin/fingerpost"), "/usr/bin/fingerpost");
    }
}
