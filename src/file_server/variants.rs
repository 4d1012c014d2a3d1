//! Precompressed files: `a.txt.br`, `a.txt.zst`, `a.txt.gz` in place of `a.txt`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::mime::Mime;
use tokio::time::Instant;

use super::encoding::{self, Coding};
use super::file_state::OpenError;
use super::found_file::FoundFile;
use super::metrics::FileServerCounters;
use super::root::{BlockingIo, Root};
use super::store::{FRESH, FileStore};
use super::validators::{self, Validators};

/// Maximum number of lookups that one worker remembers.
const MOST_REMEMBERED: usize = 4096;

/// A file in the form in which it is sent.
#[derive(Debug)]
pub(super) struct Representation<'a> {
    /// The path of the file that is sent.
    pub(super) name: Cow<'a, [u8]>,
    /// The file that is sent.
    pub(super) found: FoundFile,
    /// Whether the answer depends on `Accept-Encoding`.
    pub(super) varies: bool,
    /// Set if the file is precompressed.
    pub(super) encoded: Option<Encoded>,
}

/// Properties of a precompressed file that differ from those of the file by its own name.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) coding: Coding,
    /// The media type of the plain file.
    pub(super) media_type: Mime,
    pub(super) validators: Validators,
}

impl<'a> Representation<'a> {
    /// The plain file.
    pub(super) fn plain(name: impl Into<Cow<'a, [u8]>>, found: FoundFile) -> Self {
        Self { name: name.into(), found, varies: false, encoded: None }
    }

    pub(super) fn validators(&self) -> &Validators {
        self.encoded.as_ref().map_or(&self.found.meta.validators, |encoded| &encoded.validators)
    }

    pub(super) fn media_type(&self) -> &Mime {
        self.encoded.as_ref().map_or(&self.found.meta.media_type, |encoded| &encoded.media_type)
    }

    /// The precompressed file as a representation of this one. `None` if it is older, and so was made from an earlier
    /// version.
    fn encoded_as(&self, coding: Coding, name: Vec<u8>, found: FoundFile) -> Option<Self> {
        let (original, sibling) = (&self.found.meta, &found.meta);
        if validators::is_older(sibling.identity.modified, original.identity.modified) {
            return None;
        }
        // Compression tools preserve the modification time, so both files could have the same tag.
        let validators = sibling.validators.with_suffix(coding.token());
        let media_type = original.media_type.clone();
        let encoded = Some(Encoded { coding, media_type, validators });
        Some(Self { name: Cow::Owned(name), found, varies: true, encoded })
    }
}

/// Whether a precompressed file exists, for each coding.
type Siblings = [bool; Coding::ALL.len()];

/// The time and the result of a lookup.
type Remembered = (Instant, Siblings);

/// Selects precompressed files. Each worker has its own.
pub(super) struct Variants {
    root: Arc<Root>,
    counters: Arc<FileServerCounters>,
    remembered: RefCell<HashMap<Box<[u8]>, Remembered>>,
}

impl Variants {
    pub(super) fn new(root: Arc<Root>, counters: Arc<FileServerCounters>) -> Self {
        Self { root, counters, remembered: RefCell::default() }
    }

    /// Selects the representation of a file for these values of `Accept-Encoding`. [`OpenError::WouldBlock`] if this
    /// would wait for a disk.
    pub(super) fn select<'a, 'b>(
        &self,
        store: &FileStore,
        accepted: impl Iterator<Item = &'b [u8]>,
        mut plain: Representation<'a>,
    ) -> Result<Representation<'a>, OpenError> {
        let now = Instant::now();
        let siblings = match self.recall(&plain.name, now) {
            Some(siblings) => siblings,
            None => self.remember(&plain.name, look(&self.root, &plain.name, BlockingIo::Forbidden)?, now),
        };
        plain.varies = siblings.contains(&true);
        for coding in wanted(accepted, siblings) {
            let name = name_in(coding, &plain.name);
            let encoded = match store.get(&name, now) {
                Ok(found) => plain.encoded_as(coding, name, found),
                Err(OpenError::WouldBlock) => return Err(OpenError::WouldBlock),
                // The file was removed since the lookup, or cannot be read: try the next coding.
                Err(_) => None,
            };
            if let Some(encoded) = encoded {
                return Ok(encoded);
            }
        }
        Ok(plain)
    }

    /// The same, on threads that may wait for a disk.
    pub(super) async fn select_from_disk<'a, 'b>(
        &self,
        store: &FileStore,
        accepted: impl Iterator<Item = &'b [u8]>,
        mut plain: Representation<'a>,
    ) -> Representation<'a> {
        let (root, name) = (Arc::clone(&self.root), plain.name.to_vec());
        let looking = actix_rt::task::spawn_blocking(move || look(&root, &name, BlockingIo::Allowed));
        // If the lookup fails, the plain file is sent.
        let siblings = looking.await.unwrap_or(Ok(Siblings::default())).unwrap_or_default();
        self.remember(&plain.name, siblings, Instant::now());
        plain.varies = siblings.contains(&true);
        for coding in wanted(accepted, siblings) {
            let name = name_in(coding, &plain.name);
            let found = store.read(&name).await.ok();
            if let Some(encoded) = found.and_then(|found| plain.encoded_as(coding, name, found)) {
                return encoded;
            }
        }
        plain
    }

    fn recall(&self, name: &[u8], now: Instant) -> Option<Siblings> {
        let remembered = self.remembered.borrow();
        let (then, siblings) = remembered.get(name)?;
        (now.saturating_duration_since(*then) < FRESH).then_some(*siblings)
    }

    fn remember(&self, name: &[u8], siblings: Siblings, now: Instant) -> Siblings {
        let mut remembered = self.remembered.borrow_mut();
        // Frequent names are stored again soon.
        if remembered.len() >= MOST_REMEMBERED && !remembered.contains_key(name) {
            remembered.clear();
            self.counters.variants_forgotten.fetch_add(1, Ordering::Relaxed);
        }
        remembered.insert(name.into(), (now, siblings));
        siblings
    }
}

/// The codings that exist and are accepted, in order of preference.
fn wanted<'a>(accepted: impl Iterator<Item = &'a [u8]>, siblings: Siblings) -> impl Iterator<Item = Coding> {
    // Most files have no precompressed forms: the headers of their requests are not parsed.
    let accepted = siblings.contains(&true).then_some(accepted);
    encoding::wanted(accepted.into_iter().flatten())
        .filter(move |coding| Coding::ALL.iter().zip(siblings).any(|(own, exists)| own == coding && exists))
}

fn name_in(coding: Coding, name: &[u8]) -> Vec<u8> {
    [name, coding.ending().as_bytes()].concat()
}

/// Looks for precompressed forms of a file. A precompressed file has none.
fn look(root: &Root, name: &[u8], blocking_io: BlockingIo) -> Result<Siblings, OpenError> {
    let mut siblings = Siblings::default();
    if Coding::ALL.iter().any(|coding| name.ends_with(coding.ending().as_bytes())) {
        return Ok(siblings);
    }
    for (is_there, coding) in siblings.iter_mut().zip(Coding::ALL) {
        *is_there = match root.file(&name_in(coding, name), blocking_io) {
            Ok(_) => true,
            Err(OpenError::WouldBlock) => return Err(OpenError::WouldBlock),
            Err(_) => false,
        };
    }
    Ok(siblings)
}
