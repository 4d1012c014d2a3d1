//! Indexes as JSON: an array of objects. nginx and `fingerpost server` write `name`, `type` and `size`, caddy `name`, `is_dir` and
//! `size`. The reference `url` of caddy and `fingerpost server` takes precedence, because it is exact for names that are not
//! UTF-8.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use url::Url;

use super::{ListedEntry, ListedSize, ListingError, checked, child};

#[derive(Deserialize)]
struct IndexEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    url: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    is_dir: bool,
    size: Option<u64>,
}

pub(super) fn parse(
    page: &[u8],
    base: &Url,
    take: &mut dyn FnMut(&[u8], ListedEntry),
) -> Result<(), ListingError> {
    // nginx copies bytes that are not UTF-8.
    let text = String::from_utf8_lossy(page);
    let parsed = serde_json::Deserializer::from_str(&text).deserialize_seq(IndexVisitor { base, take });
    parsed.map_err(|error| ListingError::Json(error.to_string().chars().take(200).collect()))
}

/// Takes each entry as it is read.
struct IndexVisitor<'a> {
    base: &'a Url,
    take: &'a mut dyn FnMut(&[u8], ListedEntry),
}

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<IndexEntry<'_>>()? {
            let found = if let Some(reference) = &entry.url {
                child(self.base, reference)
            } else {
                let name = entry.name.trim_end_matches('/').as_bytes().to_vec();
                checked(name).map(|name| Some((name?, false)))
            };
            let found = found.map_err(A::Error::custom)?;
            let Some((name, has_slash)) = found else { continue };
            let is_folder = has_slash || entry.is_dir || entry.kind.as_deref() == Some("directory");
            let size = entry.size.map_or(ListedSize::UNKNOWN, ListedSize::exact);
            (self.take)(&name, if is_folder { ListedEntry::Folder } else { ListedEntry::File(size) });
        }
        Ok(())
    }
}
