//! The list of a catalogue: a file of this machine, or a URL.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use url::Url;

use super::generation::Generation;
use super::index::IndexFull;
use super::snapshot::{self, EarlierKnowledge, Knowledge};
use crate::balancer::catalogue::{self, Catalogue, CatalogueError};
use crate::balancer::state_folder::StateFolder;
use crate::http::client::{HttpClient, Request};
use crate::telemetry::chain;

/// The largest list in bytes.
const LARGEST_LIST: u64 = 4 << 30;

/// The time limit of a download of the list.
const FETCH_TIMEOUT: Duration = Duration::from_mins(10);

/// The place of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CatalogueSource {
    /// A file.
    File(PathBuf),
    /// An address.
    Url(Url),
    /// A folder, of which all files are the catalogue.
    Folder(PathBuf),
}

impl CatalogueSource {
    /// Parses a value of the setting: a URL if it starts with `http://` or `https://`.
    pub(crate) fn parse(text: &str) -> Result<Self, url::ParseError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Url(Url::parse(text)?));
        }
        Ok(Self::File(text.into()))
    }
}

impl fmt::Display for CatalogueSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Folder(path) => path.display().fmt(formatter),
            Self::Url(url) => url.fmt(formatter),
        }
    }
}

/// The list cannot be used; the last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueSourceError {
    /// The file cannot be read.
    #[error("cannot read the catalogue {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The text is not a catalogue.
    #[error("the catalogue {place} is not usable")]
    Invalid {
        /// The file or address.
        place: String,
        /// The wrong line.
        source: CatalogueError,
    },
    /// The list is too large.
    #[error("the catalogue {0} has more than 4 GiB")]
    TooLarge(String),
    /// The address gave no list.
    #[error("cannot fetch the catalogue {url}: {reason}")]
    Fetch {
        /// The address.
        url: Url,
        /// The error.
        reason: String,
    },
}

/// A catalogue at the start of a balancer.
#[derive(Debug)]
pub(crate) struct OpenCatalogue {
    /// The place of the list.
    pub(crate) source: CatalogueSource,
    /// The list, and its version; `None` if it must be downloaded first.
    pub(crate) list: Option<(ReadList, FileVersion)>,
    /// The knowledge of an earlier run.
    earlier: Option<EarlierKnowledge>,
}

impl OpenCatalogue {
    /// Reads the list if it is a file, and the knowledge of an earlier run.
    pub(crate) fn open(
        source: &CatalogueSource,
        state: Option<&StateFolder>,
    ) -> Result<Self, CatalogueSourceError> {
        let list = match source {
            CatalogueSource::File(path) => Some(read(path)?),
            CatalogueSource::Url(_) | CatalogueSource::Folder(_) => None,
        };
        Ok(Self { source: source.clone(), list, earlier: state.and_then(snapshot::load) })
    }

    /// The knowledge at the start; `numbers` has the numbers of the mirrors by address. A list that differs from the one of
    /// the earlier run makes the next generation.
    pub(crate) fn begin(self, numbers: &HashMap<&str, u32>) -> Result<Option<Knowledge>, IndexFull> {
        let earlier = self.earlier.map(|earlier| earlier.restore(numbers)).transpose()?;
        let Some((list, _)) = self.list else { return Ok(earlier) };
        let room = numbers.values().max().map_or(1, |most| *most as usize + 1);
        let old = earlier.as_ref().map(|earlier| &*earlier.generation);
        if old.is_some_and(|old| old.source == list.digest) {
            return Ok(earlier);
        }
        let scanned = earlier.as_ref().map(Knowledge::scanned).unwrap_or_default();
        let now = SystemTime::now();
        let generation = Generation::next(old, list.catalogue, list.digest, room, &scanned, now)?;
        Ok(Some(Knowledge::next(earlier, Arc::new(generation))))
    }
}

/// A list that was read.
#[derive(Debug)]
pub(crate) struct ReadList {
    /// The files.
    pub(crate) catalogue: Arc<Catalogue>,
    /// The digest of its bytes.
    pub(crate) digest: [u8; 32],
}

impl ReadList {
    /// Parses the bytes of a list from `place`.
    pub(crate) fn parse(text: &[u8], place: &dyn fmt::Display) -> Result<Self, CatalogueSourceError> {
        let invalid = |source| CatalogueSourceError::Invalid { place: place.to_string(), source };
        let catalogue = Arc::new(catalogue::parse(text).map_err(invalid)?);
        Ok(Self { catalogue, digest: Sha256::digest(text).into() })
    }
}

/// The state of a file, to detect changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileVersion {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileVersion {
    /// The state of an open file.
    #[must_use]
    pub(super) fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), size: file.len(), modified: (file.mtime(), file.mtime_nsec()) }
    }

    /// The current state of a file; `None` if it cannot be determined.
    #[must_use]
    pub(crate) fn now(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::of)
    }
}

/// Reads and parses a file.
pub(crate) fn read(path: &Path) -> Result<(ReadList, FileVersion), CatalogueSourceError> {
    let unreadable = |source| CatalogueSourceError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let state = file.metadata().map_err(unreadable)?;
    if state.len() > LARGEST_LIST {
        return Err(CatalogueSourceError::TooLarge(path.display().to_string()));
    }
    let mut text = Vec::new();
    file.take(LARGEST_LIST).read_to_end(&mut text).map_err(unreadable)?;
    Ok((ReadList::parse(&text, &path.display())?, FileVersion::of(&state)))
}

/// Fetches the bytes of a list; `None` if they have not changed since the answer with `tag`. Replaces the tag.
pub(crate) async fn fetch(
    client: &HttpClient,
    url: &Url,
    tag: Option<String>,
) -> Result<Option<(Vec<u8>, Option<String>)>, CatalogueSourceError> {
    let fail = |reason: String| CatalogueSourceError::Fetch { url: url.clone(), reason };
    let fetching = async {
        let mut request =
            Request::get(url.clone()).with("User-Agent", concat!("fingerpost/", env!("CARGO_PKG_VERSION")));
        if let Some(tag) = tag {
            request = request.with("If-None-Match", tag);
        }
        let mut answer = client.send(&request).await.map_err(|error| fail(chain(&error)))?;
        match answer.head.status {
            200 => {}
            304 => return Ok(None),
            status => return Err(fail(format!("the answer has the status {status} instead of 200"))),
        }
        let tag = answer.head.header("etag").map(str::to_owned);
        let mut text = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(|error| fail(chain(&error)))? {
            if text.len() as u64 + bytes.len() as u64 > LARGEST_LIST {
                return Err(CatalogueSourceError::TooLarge(url.to_string()));
            }
            text.extend_from_slice(&bytes);
        }
        Ok(Some((text, tag)))
    };
    match timeout(FETCH_TIMEOUT, fetching).await {
        Ok(result) => result,
        Err(_) => {
            Err(fail(format!("no complete answer within {}", humantime::format_duration(FETCH_TIMEOUT))))
        }
    }
}
