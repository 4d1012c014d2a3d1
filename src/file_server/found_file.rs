//! A file that can be sent: its metadata and its bytes.

use std::fs::File;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use actix_http::header::HeaderValue;
use actix_web::mime::Mime;
use bytes::Bytes;

use super::file_state::{FileState, Stamp};
use super::media;
use super::recorded_heads::Replays;
use super::validators::Validators;

/// The metadata of one state of a file, computed once for each worker.
#[derive(Debug)]
pub(super) struct Meta {
    /// The state of the file.
    pub identity: FileState,
    /// The entity tag and the modification date.
    pub validators: Validators,
    /// The content type.
    pub media_type: Mime,
    /// The `Repr-Digest`, once it is known.
    pub digest: OnceLock<HeaderValue>,
    /// Whether the digest was requested from the thread that computes it.
    pub is_digest_requested: AtomicBool,
    /// Recorded heads of answers.
    pub(super) replays: Replays,
}

impl Meta {
    pub(super) fn new(path: &[u8], identity: FileState) -> Self {
        let Stamp { length, modified, changed } = identity.stamp();
        Self {
            identity,
            validators: Validators::new(modified, changed, length, SystemTime::now()),
            media_type: media::media_type(path),
            digest: OnceLock::new(),
            is_digest_requested: AtomicBool::new(false),
            replays: Replays::default(),
        }
    }
}

/// A file that can be sent.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    /// The metadata.
    pub meta: Rc<Meta>,
    /// The bytes.
    pub content: Content,
}

/// The bytes of a file.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// All bytes, in memory.
    Memory(Bytes),
    /// All bytes, in a memfd.
    MemfdCopy(Arc<File>),
    /// An open file.
    File(Arc<File>),
}
