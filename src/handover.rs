//! The hand-over of the listening sockets to a new process of the program, so that an upgrade refuses no connection.
//!
//! ```text
//! old process                                  new process
//!   SIGUSR2: starts the executable  ---------->  reads settings, list and certificates, takes the sockets
//!   stops writing state             <- prepared
//!   heritage: orders and health     ---------->  starts its actors, accepts connections
//!   accepts no more connections     <---- ready
//!   finishes the others, ends
//! ```
//!
//! The sockets are passed as by systemd (`LISTEN_FDS`, `LISTEN_FDNAMES`), with a stream between both processes as the first of
//! them. The process of a new program is known only after its start, so [`PREDECESSOR`] names the old process in place of
//! `LISTEN_PID`. If the new process ends or is not ready in time, the old one continues.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping, FdMappingCollision};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::http::listener::{Address, Listening, SocketFile};
use crate::http::stop::{Phase, StopHandle};
use crate::systemd::{self, ADMIN, FIRST_SOCKET, OLD_PROCESS, PREDECESSOR, ServiceState};
use crate::telemetry::chain;

/// The time limit of a hand-over. After it, the new process is killed, and the old one continues.
const LONGEST: Duration = Duration::from_secs(30);

/// The new process has done everything that often fails.
const PREPARED: u8 = b'P';

/// The new process accepts connections.
const READY: u8 = b'R';

/// A larger heritage is refused, in bytes. That of 100 000 backends has about 100 MB.
const LARGEST_HERITAGE: u64 = 1 << 30;

/// The parts of a program that only one process may have at a time.
pub(crate) trait Estate {
    /// Stops writing, and returns the state for the new process.
    async fn release(&self) -> Vec<u8>;

    /// Takes everything back, because the new process has failed.
    async fn reclaim(&self);
}

/// A program without such parts.
pub(crate) struct NoEstate;

impl Estate for NoEstate {
    async fn release(&self) -> Vec<u8> {
        Vec::new()
    }

    async fn reclaim(&self) {}
}

/// The reason why a hand-over failed.
#[derive(Debug, thiserror::Error)]
enum HandoverError {
    /// The executable cannot be started.
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    /// The system refused a socket.
    #[error("cannot pass the sockets")]
    Sockets(#[from] io::Error),
    /// A programming error.
    #[error("cannot pass the sockets")]
    Numbers(#[from] FdMappingCollision),
    /// The new process ended.
    #[error("the new process ended before it was ready{0}; its error is on standard error")]
    Ended(String),
    /// The new process is too slow.
    #[error("the new process was not ready within {}", humantime::format_duration(LONGEST))]
    Late,
    /// The end of the old process would end the container.
    #[error(
        "this process is the first one of its container, which ends with it: start another container and stop this one"
    )]
    Container,
    /// The program is to end.
    #[error("the program is being stopped")]
    Stopped,
}

/// Hands over to a new process at SIGUSR2.
pub(crate) struct Handover {
    program: PathBuf,
    arguments: Vec<OsString>,
    sockets: Vec<(&'static str, OwnedFd)>,
    file: Option<SocketFile>,
    /// The addresses, if the process before this one created the file of the Unix socket.
    inherited: Vec<Address>,
    predecessor: Option<Predecessor>,
    signals: Signal,
}

impl Handover {
    /// Handles SIGUSR2 from now on. Owns the file of the Unix socket.
    pub(crate) fn listen(
        listening: &mut Listening,
        admin: Option<&TcpListener>,
        predecessor: Option<Predecessor>,
    ) -> io::Result<Self> {
        let signals = signal(SignalKind::user_defined2())?;
        let mut sockets = listening.duplicates()?;
        if let Some(admin) = admin {
            sockets.push((ADMIN, admin.as_fd().try_clone_to_owned()?));
        }
        let mut arguments = std::env::args_os();
        // Not the path of the running executable: an upgrade may replace a link to it.
        let program = arguments.next().map(PathBuf::from);
        let program = program.map_or_else(std::env::current_exe, Ok)?;
        let file = listening.file.take();
        let inherited = if listening.has_own_file { listening.addresses.clone() } else { Vec::new() };
        Ok(Self { program, arguments: arguments.collect(), sockets, file, inherited, predecessor, signals })
    }

    /// Whether this process takes over from another one.
    pub(crate) fn takes_over(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Reports to the old process that this one accepts connections.
    pub(crate) fn accept(&mut self) {
        if let Some(predecessor) = self.predecessor.take() {
            predecessor.finish();
            self.file = Listening::adopt_file(&self.inherited);
        }
    }

    /// Hands over at each signal until one succeeds. Then the connections of this process have `patience` to end by themselves
    /// before the stop, and `grace` after it. Never returns.
    async fn run(
        mut self,
        estate: impl Estate,
        stop: StopHandle,
        patience: impl Fn() -> Duration,
        grace: watch::Receiver<Duration>,
    ) -> Infallible {
        let mut phases = stop.phases();
        let is_over = |phase: &Phase| *phase != Phase::Running;
        loop {
            tokio::select! {
                _ = self.signals.recv() => {}
                _ = phases.wait_for(is_over) => break,
            }
            match self.hand_over(&estate, &mut phases).await {
                Ok(process) => {
                    systemd::notify(ServiceState::Successor(process));
                    tracing::info!(process, "handed over to a new process; finishing the open connections");
                    if let Some(file) = self.file.take() {
                        file.keep();
                    }
                    stop.hand_over();
                    self.sockets.clear();
                    tokio::time::sleep(patience()).await;
                    stop.stop(*grace.borrow());
                    break;
                }
                Err(error) => {
                    let reason = chain(&error);
                    tracing::error!(reason, "the hand-over failed; this process continues");
                }
            }
        }
        // A stop closes the sockets.
        self.sockets.clear();
        std::future::pending().await
    }

    async fn hand_over(
        &mut self,
        estate: &impl Estate,
        phases: &mut watch::Receiver<Phase>,
    ) -> Result<u32, HandoverError> {
        if std::process::id() == 1 {
            return Err(HandoverError::Container);
        }
        let (own, far) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(own)?;
        let mut process = NewProcess(self.start(far.into())?, true);
        tracing::info!(process = process.0.id(), "a new process takes over");
        let mut is_released = false;
        let exchange = async {
            expect(&mut stream, PREPARED).await?;
            is_released = true;
            let heritage = estate.release().await;
            stream.write_u64(heritage.len() as u64).await?;
            stream.write_all(&heritage).await?;
            expect(&mut stream, READY).await
        };
        let is_over = |phase: &Phase| *phase != Phase::Running;
        let result = tokio::select! {
            exchanged = timeout(LONGEST, exchange) => match exchanged {
                Ok(Ok(())) => return Ok(process.keep()),
                // The end of the stream: the status of the process has the reason.
                Ok(Err(_)) => HandoverError::Ended(end_of(&mut process.0).await),
                Err(_) => HandoverError::Late,
            },
            _ = phases.wait_for(is_over) => HandoverError::Stopped,
        };
        end(process).await;
        if is_released {
            estate.reclaim().await;
        }
        Err(result)
    }

    fn start(&self, far: OwnedFd) -> Result<Child, HandoverError> {
        let mut descriptors = vec![far];
        let mut names = vec![OLD_PROCESS];
        for (name, socket) in &self.sockets {
            descriptors.push(socket.try_clone()?);
            names.push(name);
        }
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_remove("LISTEN_PID")
            .env(PREDECESSOR, std::process::id().to_string())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        let mappings = descriptors.into_iter().zip(FIRST_SOCKET..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect())?;
        command.spawn().map_err(|source| HandoverError::Start { program: self.program.clone(), source })
    }
}

/// Hands over as [`Handover::run`] does; never, if the program cannot start again.
pub(crate) async fn run(
    handover: Option<Handover>,
    estate: impl Estate,
    stop: StopHandle,
    patience: impl Fn() -> Duration,
    grace: watch::Receiver<Duration>,
) -> Infallible {
    match handover {
        Some(handover) => handover.run(estate, stop, patience, grace).await,
        None => std::future::pending().await,
    }
}

async fn expect(stream: &mut tokio::net::UnixStream, word: u8) -> io::Result<()> {
    if stream.read_u8().await? == word { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The exit status of a process that ends, as text.
async fn end_of(process: &mut Child) -> String {
    // It has closed the stream, or was killed, so it ends in a moment.
    for _ in 0..100 {
        if let Ok(Some(status)) = process.try_wait() {
            return format!(" ({status})");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    String::new()
}

/// A new process, which is killed with the hand-over unless it takes over. This program may end at any time.
struct NewProcess(Child, bool);

impl NewProcess {
    fn keep(mut self) -> u32 {
        self.1 = false;
        self.0.id()
    }
}

impl Drop for NewProcess {
    fn drop(&mut self) {
        if self.1 {
            // It may have ended already.
            let _ = self.0.kill();
        }
    }
}

/// Kills a process and waits for its end, because it may hold the state folder until then.
async fn end(mut process: NewProcess) {
    let _ = process.0.kill();
    end_of(&mut process.0).await;
}

/// The process that hands over to this one.
#[derive(Debug)]
pub(crate) struct Predecessor(UnixStream);

impl Predecessor {
    /// The other end of the stream.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Has the old process stop writing, and returns its heritage; `None` if it has ended meanwhile. Blocks.
    pub(crate) fn inherit(&mut self) -> Option<Vec<u8>> {
        let mut read = || -> io::Result<Vec<u8>> {
            self.0.set_read_timeout(Some(LONGEST))?;
            self.0.write_all(&[PREPARED])?;
            let mut length = [0; 8];
            self.0.read_exact(&mut length)?;
            let length = u64::from_be_bytes(length);
            let mut heritage = Vec::new();
            let read = (&self.0).take(length.min(LARGEST_HERITAGE)).read_to_end(&mut heritage)?;
            if read as u64 == length { Ok(heritage) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        };
        read()
            .inspect_err(|error| tracing::warn!(%error, "the old process has ended; starting without it"))
            .ok()
    }

    /// Reports that this process accepts connections.
    pub(crate) fn finish(mut self) {
        if let Err(error) = self.0.write_all(&[READY]) {
            tracing::warn!(%error, "the old process has ended");
        }
    }
}
