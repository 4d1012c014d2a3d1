//! A list as JSON: an array of entries like those of a listing of `fingerpost server`, or an object with such an array as
//! `files`.
//!
//! An entry has a `path`, or the percent-encoded reference `url`, or a `name`, each relative to the root of the mirrors, and
//! optionally `size`, `sha256`, and `pieces` with the `length` and `sha256` of each piece. Entries of the `type` `directory`
//! are ignored.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::{
    Catalogue, CatalogueBuilder, CatalogueContent, CatalogueError, EntryError, ListPlace, PieceDigests,
    sha256, shown,
};

#[derive(Deserialize)]
struct JsonListing<'a> {
    #[serde(borrow)]
    files: Vec<Listed<'a>>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    size: Option<u64>,
    #[serde(borrow)]
    sha256: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pieces: Option<ListedPieces<'a>>,
}

#[derive(Deserialize)]
struct ListedPieces<'a> {
    length: u64,
    #[serde(borrow)]
    sha256: Vec<Cow<'a, str>>,
}

impl ListedPieces<'_> {
    /// The pieces of a file of this size; `None` if they are not valid.
    fn digests(&self, size: Option<u64>) -> Option<PieceDigests> {
        let digests: Box<[_]> =
            self.sha256.iter().map(|digits| sha256(digits.as_bytes())).collect::<Option<_>>()?;
        let is_valid = self.length > 0 && size?.div_ceil(self.length) == digests.len() as u64;
        is_valid.then_some(PieceDigests { length: self.length, digests })
    }
}

pub(super) fn parse(text: &[u8]) -> Result<Catalogue, CatalogueError> {
    let parsed = if text.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<Vec<Listed<'_>>>(text)
    } else {
        serde_json::from_slice::<JsonListing<'_>>(text).map(|listing| listing.files)
    };
    let listed = parsed.map_err(|error| CatalogueError {
        place: ListPlace::Line(error.line()),
        reason: EntryError::Json(shown(error.to_string().as_bytes())),
    })?;
    let mut builder = CatalogueBuilder::new(ListPlace::Entry);
    for (number, file) in (1..).zip(listed) {
        if file.kind.as_deref() == Some("directory") {
            continue;
        }
        let fail = |reason| CatalogueError { place: ListPlace::Entry(number), reason };
        let path: Cow<'_, [u8]> = match (&file.path, &file.url, &file.name) {
            (Some(path), _, _) | (None, None, Some(path)) => path.as_bytes().into(),
            (None, Some(url), _) => percent_decode_str(url).into(),
            (None, None, None) => return Err(fail(EntryError::NoName)),
        };
        let sha256 = match &file.sha256 {
            None => None,
            Some(digits) => Some(
                sha256(digits.as_bytes())
                    .ok_or_else(|| fail(EntryError::NotAChecksum { line: shown(digits.as_bytes()) }))?,
            ),
        };
        let start = builder.add(number, &path, CatalogueContent { size: file.size, sha256 })?;
        if let Some(pieces) = &file.pieces {
            let digests = pieces.digests(file.size);
            let digests = digests.ok_or_else(|| fail(EntryError::Pieces { path: shown(&path) }))?;
            builder.pieces.insert(start, Arc::new(digests));
        }
    }
    builder.finish()
}
