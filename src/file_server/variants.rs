//! Files that lie beside others in a content coding: `a.txt.br`, `a.txt.zst`, `a.txt.gz` beside `a.txt`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::mime::Mime;
use tokio::time::Instant;

use super::encoding::{self, Coding};
use super::metrics::WorkerCounters;
use super::root::{OpenError, Patience, Root};
use super::store::{FRESH, Found, Store};
use super::validators::{self, Validators};

/// Files of which one worker remembers what lies beside them.
const MOST_REMEMBERED: usize = 4096;

/// A file as it is sent.
#[derive(Debug)]
pub(super) struct Representation<'a> {
    /// Its path; that of the encoded one where that is sent.
    pub(super) name: Cow<'a, [u8]>,
    /// What is there.
    pub(super) found: Found,
    /// Whether another request might get it in another coding.
    pub(super) varies: bool,
    /// Where it is in a coding.
    pub(super) encoded: Option<Encoded>,
}

/// What an encoded file has in place of its own.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) coding: Coding,
    /// The type of the file beside it.
    pub(super) media_type: Mime,
    pub(super) validators: Validators,
}

impl<'a> Representation<'a> {
    /// A file as it is.
    pub(super) fn plain(name: impl Into<Cow<'a, [u8]>>, found: Found) -> Self {
        Self { name: name.into(), found, varies: false, encoded: None }
    }

    pub(super) fn validators(&self) -> &Validators {
        self.encoded.as_ref().map_or(&self.found.meta.validators, |encoded| &encoded.validators)
    }

    pub(super) fn media_type(&self) -> &Mime {
        self.encoded.as_ref().map_or(&self.found.meta.media_type, |encoded| &encoded.media_type)
    }

    /// The file beside this one instead, unless it is older and so was made of an earlier version.
    fn encoded_as(&self, coding: Coding, name: Vec<u8>, found: Found) -> Option<Self> {
        let (original, sibling) = (&self.found.meta, &found.meta);
        if validators::is_older(sibling.identity.modified, original.identity.modified) {
            return None;
        }
        // Whoever compresses a file keeps its time, so that one tag could name two representations without this.
        let validators = sibling.validators.with_suffix(coding.token());
        let media_type = original.media_type.clone();
        let encoded = Some(Encoded { coding, media_type, validators });
        Some(Self { name: Cow::Owned(name), found, varies: true, encoded })
    }
}

/// Which codings of a file there are.
type Siblings = [bool; Coding::ALL.len()];

/// What was found beside a file, and when.
type Remembered = (Instant, Siblings);

/// Finds the encoded files beside others. Each worker has its own.
pub(super) struct Variants {
    root: Arc<Root>,
    counters: Arc<WorkerCounters>,
    remembered: RefCell<HashMap<Box<[u8]>, Remembered>>,
}

impl Variants {
    pub(super) fn new(root: Arc<Root>, counters: Arc<WorkerCounters>) -> Self {
        Self { root, counters, remembered: RefCell::default() }
    }

    /// The representation of a file for these values of `Accept-Encoding`; [`OpenError::WouldBlock`] if only a disk can
    /// tell.
    pub(super) fn select<'a, 'b>(
        &self,
        store: &Store,
        accepted: impl Iterator<Item = &'b [u8]>,
        mut plain: Representation<'a>,
    ) -> Result<Representation<'a>, OpenError> {
        let now = Instant::now();
        let siblings = match self.recall(&plain.name, now) {
            Some(siblings) => siblings,
            None => self.remember(&plain.name, look(&self.root, &plain.name, Patience::Cached)?, now),
        };
        plain.varies = siblings.contains(&true);
        for coding in wanted(accepted, siblings) {
            let name = name_in(coding, &plain.name);
            let encoded = match store.get(&name, now) {
                Ok(found) => plain.encoded_as(coding, name, found),
                Err(OpenError::WouldBlock) => return Err(OpenError::WouldBlock),
                // It is gone since, or cannot be read: the next will do.
                Err(_) => None,
            };
            if let Some(encoded) = encoded {
                return Ok(encoded);
            }
        }
        Ok(plain)
    }

    /// The same, by threads that may wait for a disk.
    pub(super) async fn select_from_disk<'a, 'b>(
        &self,
        store: &Store,
        accepted: impl Iterator<Item = &'b [u8]>,
        mut plain: Representation<'a>,
    ) -> Representation<'a> {
        let (root, name) = (Arc::clone(&self.root), plain.name.to_vec());
        let looking = actix_rt::task::spawn_blocking(move || look(&root, &name, Patience::Disk));
        // What cannot be found out is not sent.
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
        // What is asked for often is there again at once.
        if remembered.len() >= MOST_REMEMBERED && !remembered.contains_key(name) {
            remembered.clear();
            self.counters.variants_forgotten.fetch_add(1, Ordering::Relaxed);
        }
        remembered.insert(name.into(), (now, siblings));
        siblings
    }
}

/// The codings that exist and are accepted, the preferred one first.
fn wanted<'a>(accepted: impl Iterator<Item = &'a [u8]>, siblings: Siblings) -> impl Iterator<Item = Coding> {
    // Most files have no siblings: the headers of their requests are not parsed.
    let accepted = siblings.contains(&true).then_some(accepted);
    encoding::wanted(accepted.into_iter().flatten())
        .filter(move |coding| Coding::ALL.iter().zip(siblings).any(|(own, exists)| own == coding && exists))
}

fn name_in(coding: Coding, name: &[u8]) -> Vec<u8> {
    [name, coding.ending().as_bytes()].concat()
}

/// Looks for what lies beside a file. A file that has such a name itself has nothing beside it.
fn look(root: &Root, name: &[u8], patience: Patience) -> Result<Siblings, OpenError> {
    let mut siblings = Siblings::default();
    if Coding::ALL.iter().any(|coding| name.ends_with(coding.ending().as_bytes())) {
        return Ok(siblings);
    }
    for (is_there, coding) in siblings.iter_mut().zip(Coding::ALL) {
        *is_there = match root.file(&name_in(coding, name), patience) {
            Ok(_) => true,
            Err(OpenError::WouldBlock) => return Err(OpenError::WouldBlock),
            Err(_) => false,
        };
    }
    Ok(siblings)
}
