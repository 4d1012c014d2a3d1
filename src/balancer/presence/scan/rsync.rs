//! Scans by `rsync --list-only`, which runs as a child process.

use std::io;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use url::Url;

use super::found::FoundFiles;
use super::listing::{self, LONGEST_NAME, ListingError};
use super::{MOST_ENTRIES, ScanError};
use crate::balancer::presence::generation::Generation;

/// The address space of rsync: it keeps a part of the listing, which may have no end.
const MOST_MEMORY: u64 = 2 << 30;

/// The longest line. rsync writes a byte that a terminal may not show as five.
const LONGEST_LINE: usize = 5 * LONGEST_NAME + 64;

/// The bytes of a message of rsync that are kept.
const LONGEST_MESSAGE: u64 = 4096;

/// The bytes after which other tasks of the thread run.
const SLICE: usize = 64 << 10;

/// Lists the files below `root`. The child ends with the returned future.
pub(super) async fn list(root: &Url, generation: Arc<Generation>) -> Result<FoundFiles, ScanError> {
    let mut child = start(root).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ScanError::NoRsync,
        _ => ScanError::Child(error),
    })?;
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(ScanError::Child(io::ErrorKind::BrokenPipe.into()));
    };
    let mut found = FoundFiles::new(generation);
    let reading = async {
        let result = read(output, &mut found).await;
        if result.is_err() {
            // Its messages end, too.
            let _ = child.start_kill();
        }
        result
    };
    let (result, message) = tokio::join!(reading, message(errors));
    result?;
    let status = child.wait().await.map_err(ScanError::Child)?;
    if status.success() { Ok(found) } else { Err(ScanError::Rsync { status, message }) }
}

fn start(root: &Url) -> io::Result<Child> {
    let mut command = Command::new("rsync");
    command
        .args(["--list-only", "--recursive", "--links", "--no-motd", "--no-human-readable", "--8-bit-output"])
        .args(["--contimeout=10", "--timeout=60", "--", root.as_str()])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn()?;
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let limit = Rlimit { current: Some(MOST_MEMORY), maximum: Some(MOST_MEMORY) };
        // Without the limit, the time limit still ends an endless listing.
        let _ = prlimit(Some(pid), Resource::As, limit);
    }
    Ok(child)
}

async fn read(output: ChildStdout, found: &mut FoundFiles) -> Result<(), ScanError> {
    let mut output = BufReader::with_capacity(SLICE, output);
    let (mut line, mut lines) = (Vec::new(), 0);
    loop {
        line.clear();
        let next = (&mut output).take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await;
        if next.map_err(ScanError::Child)? == 0 {
            return Ok(());
        }
        lines += 1;
        if lines > MOST_ENTRIES {
            return Err(ScanError::TooManyEntries);
        }
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() == LONGEST_LINE {
            return Err(ScanError::Listing(ListingError::LongName { bytes: LONGEST_LINE }));
        }
        if let Some((path, entry)) = listing::line(&line) {
            found.add(&[b"/", path.as_slice()].concat(), entry);
        }
        if output.buffer().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// The last line of the messages, which explains a failure.
async fn message(errors: ChildStderr) -> String {
    let mut text = Vec::new();
    let mut errors = errors.take(LONGEST_MESSAGE);
    // The text is incomplete if it cannot be read.
    let _ = errors.read_to_end(&mut text).await;
    // A full pipe would block the child.
    let _ = tokio::io::copy(&mut errors.into_inner(), &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    line.chars().take(200).collect()
}
