//! `fingerpost up`: a balancer and some servers in one process, ready in one command. For a first look and for
//! trying settings; it listens on 127.0.0.1 only.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::{self, FutureExt};
use tempfile::TempDir;

use crate::balancer::settings::BalancerSettings;
use crate::balancer::{Balancer, BalancerError};
use crate::cli::UpArguments;
use crate::file_server::settings::ServerSettings;
use crate::file_server::{FileServer, ServerError};
use crate::http::stop::{Interrupts, StopHandle};
use crate::open_files::{self, TooFewFiles};
use crate::settings::SettingsError;
use crate::systemd::PassedSockets;
use crate::telemetry::say;

const HOST: &str = "127.0.0.1";

/// What is served where the working folder has no `files/`.
const SAMPLES: [(&str, &[u8]); 2] = [
    ("plshelp.txt", include_bytes!("../files/plshelp.txt")),
    ("hello.txt", include_bytes!("../files/hello.txt")),
];

/// Why nothing is up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A server cannot run.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The balancer cannot run.
    #[error(transparent)]
    Balancer(#[from] BalancerError),
    /// The list, or the samples, cannot be written.
    #[error("cannot write the list of servers to the folder for temporary files")]
    Scratch(#[source] io::Error),
    /// Too few files may be open.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// The system gave no signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// Runs `fingerpost up` until it is told to stop.
pub fn command(arguments: &UpArguments) -> Result<(), UpError> {
    let mut raw = crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    HOST.clone_into(&mut raw.server.host);
    raw.server.port = 0;
    raw.server.unix_socket = PathBuf::new();
    // One address cannot be that of several servers.
    raw.server.admin = String::new();
    HOST.clone_into(&mut raw.balancer.host);
    raw.balancer.unix_socket = PathBuf::new();
    let scratch = tempfile::Builder::new().prefix("fingerpost-").tempdir().map_err(UpError::Scratch)?;

    let mut server_settings = ServerSettings::try_from(raw.server)?;
    if arguments.root.is_none() && !server_settings.root.is_dir() {
        server_settings.root = write_samples(&scratch).map_err(UpError::Scratch)?;
    }
    // All of them share the machine's processors.
    server_settings.workers = 1;
    let balancer_settings = BalancerSettings::try_from(raw.balancer)?;
    let of_servers = server_settings.open_files().times(arguments.servers as u64);
    open_files::provide(balancer_settings.open_files().and(of_servers))?;
    let servers = (0..arguments.servers)
        .map(|_| FileServer::build(server_settings.clone(), PassedSockets::default()))
        .collect::<Result<Vec<_>, _>>()?;

    let grace = balancer_settings.shutdown_timeout;
    let list = write_list(&scratch, &servers).map_err(UpError::Scratch)?;
    let balancer =
        Balancer::build(BalancerSettings { servers: list, ..balancer_settings }, PassedSockets::default())?;

    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::of_terminal().map_err(UpError::Signals)?;
        actix::spawn(interrupts.announce_and_stop(stop.clone(), grace));
        servers.iter().try_for_each(FileServer::reopen_log_on_signal).map_err(UpError::Signals)?;
        run(servers, balancer, &server_settings.root, &stop).await
    })
}

async fn run(
    servers: Vec<FileServer>,
    balancer: Balancer,
    root: &Path,
    stop: &StopHandle,
) -> Result<(), UpError> {
    say(format_args!("Serving the folder {}", root.display()));
    let serving = servers.into_iter().zip(1..).map(|(server, number)| {
        let ready = move |bound: &crate::file_server::Bound| {
            for address in &bound.clients {
                say(format_args!("Server {number} at http://{address}/"));
            }
        };
        server.run(ready, stop.clone()).map(|ended| ended.map_err(UpError::from)).boxed_local()
    });
    // The servers come first, so that they print their addresses and answer the balancer's first probes.
    let mut all: Vec<_> = serving.collect();
    let ready = |bound: &crate::balancer::Bound| {
        for address in &bound.clients {
            say(format_args!("Balancer at http://{address}/"));
            say(format_args!("To download through it: fingerpost get http://{address}/plshelp.txt"));
        }
        bound.announce();
    };
    all.push(balancer.run(ready, stop.clone()).map(|ended| ended.map_err(UpError::from)).boxed_local());
    // One that ends with an error takes the others along; a stop ends all of them.
    future::try_join_all(all).await.map(drop)
}

fn write_samples(scratch: &TempDir) -> io::Result<PathBuf> {
    let folder = scratch.path().join("files");
    std::fs::create_dir(&folder)?;
    for (name, content) in SAMPLES {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(folder)
}

fn write_list(scratch: &TempDir, servers: &[FileServer]) -> io::Result<PathBuf> {
    let mut list = String::from("# Written by fingerpost up, for as long as it runs.\n");
    for address in servers.iter().flat_map(|server| &server.bound().clients) {
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{address}");
    }
    let path = scratch.path().join("balancer_server_list.txt");
    std::fs::write(&path, list)?;
    Ok(path)
}
