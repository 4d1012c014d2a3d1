//! The access log: one line for each answer, written when the answer has ended, with the number of bytes that were
//! sent.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use actix_http::header::{self, HeaderName};
use actix_http::{RequestHead, StatusCode};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::folder;
use crate::http::transport::{AnswerEnd, Completion, Refusal, RefusalLog};

mod file;

use file::{LogFile, Message};

/// Lines that wait to be written. A line beyond this number is dropped and counted.
const WAITING: usize = 8192;

/// Maximum time that a stop waits for the last lines to be written.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Delay before the next attempt to send to a full queue.
const AGAIN: Duration = Duration::from_millis(5);

/// Maximum length, in bytes, of a text from the client in a line.
const LONGEST: usize = 2048;

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// The combined format of Apache and nginx.
    Combined,
    /// A JSON object.
    Json,
}

/// Passes lines to a thread that writes them, so that a request never waits for the disk.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    format: Format,
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// The access log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the access log {}: check that its folder exists and is writable", path.display())]
pub(crate) struct AccessLogError {
    path: PathBuf,
    source: io::Error,
}

/// A file for [`AccessLog::move_to`].
#[derive(Debug)]
pub(crate) struct OpenedLog(Box<LogFile>);

impl OpenedLog {
    /// Opens the file as [`AccessLog::open`] does.
    pub(crate) fn open(path: &Path) -> Result<Self, AccessLogError> {
        let file = LogFile::open(path).map_err(|source| AccessLogError { path: path.to_owned(), source })?;
        Ok(Self(Box::new(file)))
    }
}

impl AccessLog {
    /// Appends to this file, and opens it again after it was renamed or removed. `/dev/stdout` and `/dev/stderr` are
    /// the streams of this process. A FIFO needs no reader yet.
    pub(crate) fn open(path: &Path, format: Format) -> Result<Self, AccessLogError> {
        let failed = |source| AccessLogError { path: path.to_owned(), source };
        let mut file = LogFile::open(path).map_err(failed)?;
        let (lines, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || file::write_lines(&receiver, &mut file, &counter))
            .map_err(failed)?;
        Ok(Self { format, lines, lost })
    }

    /// Checks that [`open`](Self::open) could succeed, without creating a file.
    pub(crate) fn check(path: &Path) -> Result<(), AccessLogError> {
        check_writable(path).map_err(|source| AccessLogError { path: path.to_owned(), source })
    }

    /// The number of lines that were dropped because the disk was too slow or full.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Writes the line of an answer that has ended.
    pub(crate) fn end(&self, entry: &LogEntry, end: AnswerEnd) {
        let line = match self.format {
            Format::Combined => entry.combined(end, SystemTime::now()),
            Format::Json => entry.json(end, SystemTime::now()),
        };
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file again under its name, as after a rotation. If the queue is full, the next check does it.
    pub(crate) fn reopen(&self) {
        let _ = self.lines.try_send(Message::Reopen);
    }

    /// Writes to another file from now on.
    pub(crate) async fn move_to(&self, OpenedLog(file): OpenedLog) {
        self.send(Message::Move(file)).await;
    }

    /// Waits for space in the queue.
    async fn send(&self, mut message: Message) {
        while let Err(TrySendError::Full(unsent)) = self.lines.try_send(message) {
            message = unsent;
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits at most [`LAST_WRITE`] until all lines so far are written.
    pub(crate) async fn written(&self) {
        let (done, is_done) = oneshot::channel();
        let written = async {
            self.send(Message::Flush(done)).await;
            // If the thread has ended, the channel closes and nothing more is written.
            let _ = is_done.await;
        };
        if tokio::time::timeout(LAST_WRITE, written).await.is_err() {
            tracing::warn!(
                "the last lines of the access log may be missing: its disk or its reader is too slow"
            );
        }
    }
}

/// Opens the log again at each SIGUSR1, which logrotate sends after a rename. Without a log the signal is ignored; its default
/// action would end the process. Must be called on an arbiter.
pub(crate) fn reopen_on_signal(log: Option<&AccessLog>) -> io::Result<()> {
    let mut signals = signal(SignalKind::user_defined1())?;
    if let Some(log) = log.cloned() {
        actix_rt::spawn(async move {
            while signals.recv().await.is_some() {
                log.reopen();
            }
        });
    }
    Ok(())
}

/// Checks that this process may write to a file or create it.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(rustix::io::Errno::ISDIR.into()),
        Ok(_) => Ok(rustix::fs::access(path, Access::WRITE_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder::check_writable(folder::folder_of(path))
        }
        Err(error) => Err(error),
    }
}

impl RefusalLog for AccessLog {
    fn refused(&self, refusal: &Refusal<'_>) {
        let entry = LogEntry {
            client: refusal.client,
            line: RequestLine::parse(refusal.request_line),
            status: refusal.status.as_u16(),
            referer: None,
            user_agent: None,
            range: None,
            began: None,
            redirect: None,
        };
        self.end(&entry, refusal.end);
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// The properties of a request that its line contains.
#[derive(Debug)]
pub(crate) struct LogEntry {
    client: Option<IpAddr>,
    line: RequestLine,
    status: u16,
    referer: Option<String>,
    user_agent: Option<String>,
    range: Option<String>,
    /// `None` if the request was refused before its head was complete.
    began: Option<tokio::time::Instant>,
    redirect: Option<RedirectEntry>,
}

/// The properties of a redirect that its line contains.
#[derive(Debug, Serialize)]
pub(crate) struct RedirectEntry {
    /// The address of the chosen backend.
    pub backend: String,
    /// The reason of the choice, as a word.
    pub reason: &'static str,
    /// The other backends of the answer.
    pub alternates: Vec<String>,
}

#[derive(Debug)]
enum RequestLine {
    Parts {
        method: String,
        target: String,
        version: String,
    },
    /// Bytes that are not a request line, or its beginning; empty if no byte was received.
    Raw(Vec<u8>),
}

impl RequestLine {
    fn parse(line: &[u8]) -> Self {
        let text = str::from_utf8(line).unwrap_or_default();
        match *text.split(' ').collect::<Vec<_>>().as_slice() {
            [method, target, version] if version.starts_with("HTTP/") => {
                Self::Parts { method: cut(method), target: cut(target), version: cut(version) }
            }
            _ => Self::Raw(line.iter().copied().take(LONGEST).collect()),
        }
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    client: Option<IpAddr>,
    method: Option<&'a str>,
    target: Option<&'a str>,
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_line: Option<Cow<'a, str>>,
    status: u16,
    body_bytes: u64,
    aborted: bool,
    seconds: Option<f64>,
    referer: Option<&'a str>,
    user_agent: Option<&'a str>,
    range: Option<&'a str>,
    #[serde(flatten)]
    redirect: Option<&'a RedirectEntry>,
}

impl LogEntry {
    /// Copies the parts of a request that its line will contain.
    pub(crate) fn of(request: &RequestHead, status: StatusCode) -> Self {
        let field = |name: HeaderName| {
            let value = request.headers.get(name)?;
            Some(cut(&String::from_utf8_lossy(value.as_bytes())))
        };
        Self {
            client: request.peer_addr.map(|address| address.ip().to_canonical()),
            line: RequestLine::Parts {
                method: cut(request.method.as_str()),
                target: cut(&request.uri.to_string()),
                version: format!("{:?}", request.version),
            },
            status: status.as_u16(),
            referer: field(header::REFERER),
            user_agent: field(header::USER_AGENT),
            range: field(header::RANGE),
            began: Some(tokio::time::Instant::now()),
            redirect: None,
        }
    }

    /// Adds the choice of a backend, and the address of a client behind a proxy.
    pub(crate) fn redirected(self, client: Option<IpAddr>, redirect: RedirectEntry) -> Self {
        Self { client: client.or(self.client), redirect: Some(redirect), ..self }
    }

    fn combined(&self, end: AnswerEnd, now: SystemTime) -> String {
        let mut line = match self.client {
            Some(client) => client.to_string(),
            None => "unix:".to_owned(),
        };
        let _ = write!(line, " - - [{}] \"", clf_time(now));
        match &self.line {
            RequestLine::Parts { method, target, version } => {
                for (part, after) in [(method, " "), (target, " "), (version, "")] {
                    escape(part.as_bytes(), &mut line);
                    line.push_str(after);
                }
            }
            RequestLine::Raw(bytes) if bytes.is_empty() => line.push('-'),
            RequestLine::Raw(bytes) => escape(bytes, &mut line),
        }
        let _ = write!(line, "\" {} {} \"", self.status, end.body_sent);
        escape(self.referer.as_deref().unwrap_or("-").as_bytes(), &mut line);
        line.push_str("\" \"");
        escape(self.user_agent.as_deref().unwrap_or("-").as_bytes(), &mut line);
        line.push('"');
        if let Some(RedirectEntry { backend, reason, alternates }) = &self.redirect {
            let _ = write!(line, " \"{backend}\" {reason} \"{}\"", alternates.join(" "));
        }
        line.push_str(match end.completion {
            Completion::Whole => "\n",
            Completion::Aborted => " aborted\n",
        });
        line
    }

    fn json(&self, end: AnswerEnd, now: SystemTime) -> String {
        let (method, target, version, request_line) = match &self.line {
            RequestLine::Parts { method, target, version } => {
                (Some(method.as_str()), Some(target.as_str()), Some(version.as_str()), None)
            }
            RequestLine::Raw(bytes) => (None, None, None, Some(String::from_utf8_lossy(bytes))),
        };
        let line = JsonLine {
            time: humantime::format_rfc3339_millis(now).to_string(),
            client: self.client,
            method,
            target,
            version,
            request_line,
            status: self.status,
            body_bytes: end.body_sent,
            aborted: end.completion == Completion::Aborted,
            seconds: self.began.map(|began| began.elapsed().as_secs_f64()),
            referer: self.referer.as_deref(),
            user_agent: self.user_agent.as_deref(),
            range: self.range.as_deref(),
            redirect: self.redirect.as_ref(),
        };
        // The line holds strings and numbers only, so serialization cannot fail.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

/// `22/Nov/2026:17:00:00 +0000`.
fn clf_time(now: SystemTime) -> String {
    let date = httpdate::fmt_http_date(now);
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or_default();
    format!("{}/{}/{}:{} +0000", part(5..7), part(8..11), part(12..16), part(17..25))
}

/// Appends `text` with quotes, backslashes and bytes other than visible ASCII as `\xHH`, so that it cannot end the
/// line.
fn escape(text: &[u8], line: &mut String) {
    for &byte in text {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            line.push(char::from(byte));
        } else {
            let _ = write!(line, "\\x{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
