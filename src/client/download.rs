//! One file, from the address that was asked for to the name on the disk.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use url::Url;

use super::error::DownloadError;
use super::event::{Event, Observer};
use super::redirect::Trail;
use super::sink::{Existing, PartFile, SinkError};
use super::transport::{Answer, Request, Transport};

/// The longest page of a redirect or an error that is kept to be shown, in bytes.
const MAX_PAGE_BYTES: usize = 64 * 1024;

/// Where the file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To this path, by way of a part file beside it.
    File(PathBuf),
    /// To standard output, as it arrives.
    StandardOutput,
}

/// What is to be downloaded, and how.
#[derive(Debug, Clone)]
pub struct Job {
    /// The address to begin with.
    pub url: Url,
    /// Where the file goes.
    pub output: Output,
    /// How many redirects are followed.
    pub max_redirects: usize,
}

/// Downloads one file and gives its size in bytes.
pub async fn run(transport: &Transport, job: &Job, observer: &dyn Observer) -> Result<u64, DownloadError> {
    let (url, mut answer) = follow(transport, job, observer).await?;
    let size = answer.head.content_length().ok().flatten();
    let target = match &job.output {
        Output::File(path) => Some(path.as_path()),
        Output::StandardOutput => None,
    };
    observer.notice(&Event::Started { target, size });
    let mut sink = Sink::open(&job.output)?;
    let mut received = 0_u64;
    loop {
        match answer.chunk().await {
            Ok(Some(bytes)) => {
                sink.write(received, &bytes)?;
                let count = bytes.len() as u64;
                received = received.saturating_add(count);
                observer.notice(&Event::Received { bytes: count });
            }
            Ok(None) => break,
            Err(source) => {
                sink.discard()?;
                return Err(DownloadError::Transport { url: url.to_string(), source });
            }
        }
    }
    sink.finish(received)?;
    observer.notice(&Event::Finished { target, size: received });
    Ok(received)
}

/// Asks and follows redirects until a server answers with the file.
async fn follow(
    transport: &Transport,
    job: &Job,
    observer: &dyn Observer,
) -> Result<(Url, Answer), DownloadError> {
    let mut url = job.url.clone();
    let mut trail = Trail::new(url.clone(), job.max_redirects);
    loop {
        let request = Request::get(url.clone()).with("User-Agent", super::USER_AGENT).with("Accept", "*/*");
        let mut answer = transport
            .send(&request)
            .await
            .map_err(|source| DownloadError::Transport { url: url.to_string(), source })?;
        if answer.head.status == 200 {
            return Ok((url, answer));
        }
        let page = page(&mut answer).await;
        let head = answer.head.raw();
        if !answer.head.is_redirect() {
            observer.notice(&Event::Refused { head, page: &page });
            return Err(DownloadError::Refused { url: url.to_string(), status: answer.head.status });
        }
        match trail.follow(answer.head.header("location")) {
            Ok(next) => {
                observer.notice(&Event::Redirected { head, page: &page, to: &next });
                url = next;
            }
            Err(error) => {
                observer.notice(&Event::Refused { head, page: &page });
                return Err(error.into());
            }
        }
    }
}

/// The page of an answer that is not the file; what comes of it, where it breaks off or is endless.
async fn page(answer: &mut Answer) -> Bytes {
    let mut page = BytesMut::new();
    while let Ok(Some(bytes)) = answer.chunk().await {
        let room = MAX_PAGE_BYTES.saturating_sub(page.len());
        page.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        if page.len() >= MAX_PAGE_BYTES {
            break;
        }
    }
    page.freeze()
}

enum Sink {
    Part(PartFile, Existing),
    /// Its descriptor, without the line buffer of the standard library's handle.
    StandardOutput(File),
}

impl Sink {
    fn open(output: &Output) -> Result<Self, SinkError> {
        match output {
            Output::StandardOutput => {
                let descriptor = std::io::stdout().as_fd().try_clone_to_owned();
                Ok(Self::StandardOutput(descriptor.map_err(SinkError::StandardOutput)?.into()))
            }
            Output::File(path) => {
                let existing =
                    if path.symlink_metadata().is_ok() { Existing::Replace } else { Existing::Keep };
                let part = PartFile::open(path)?;
                part.set_size(0)?;
                Ok(Self::Part(part, existing))
            }
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        match self {
            Self::Part(part, _) => part.write_at(offset, bytes),
            Self::StandardOutput(output) => output.write_all(bytes).map_err(SinkError::StandardOutput),
        }
    }

    fn finish(self, size: u64) -> Result<(), SinkError> {
        match self {
            Self::Part(part, existing) => {
                part.set_size(size)?;
                part.finish(existing)
            }
            Self::StandardOutput(_) => Ok(()),
        }
    }

    fn discard(self) -> Result<(), SinkError> {
        match self {
            Self::Part(part, _) => part.discard(),
            Self::StandardOutput(_) => Ok(()),
        }
    }
}
