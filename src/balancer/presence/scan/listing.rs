//! Listings of folders: the indexes of nginx, Apache, caddy, lighttpd and `fingerpost server` as HTML or JSON, and the lines of
//! `rsync --list-only`. Pure: each entry is passed on at once, so the memory does not depend on the number of entries.

use url::{Position, Url};

mod html;
mod json;
mod lines;

pub use lines::line;

/// The longest name or path in bytes.
pub const LONGEST_NAME: usize = 4096;

/// A listing that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// A name that no catalogue can have.
    #[error("a name has {bytes} bytes; at most {LONGEST_NAME} are read")]
    LongName {
        /// Its length.
        bytes: usize,
    },
    /// JSON of another form.
    #[error("the JSON is no array of files: {0}")]
    Json(String),
    /// Another kind of content.
    #[error("the answer is neither HTML nor JSON")]
    OtherContent,
}

/// An entry of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedEntry {
    /// A file.
    File(ListedSize),
    /// A folder.
    Folder,
    /// A link, whose target is not listed.
    Link,
}

/// The size of a listed file, which may be rounded: a range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedSize {
    least: u64,
    most: u64,
}

impl ListedSize {
    /// The listing has no size.
    pub const UNKNOWN: Self = Self { least: 0, most: u64::MAX };

    /// A size in bytes.
    #[must_use]
    pub fn exact(size: u64) -> Self {
        Self { least: size, most: size }
    }

    /// Parses a size such as `1536`, `1.5K` or `12M`. Programs round in different ways and use units of 1000 or 1024, so a
    /// size with a unit includes one step of its last digit in both directions, and both units.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::exact);
        }
        let end = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let (number, unit) = text.split_at(end);
        let power = match unit.trim_end_matches(['i', 'B', 'b']) {
            "" if unit == "B" => 0,
            "K" | "k" => 1,
            "M" => 2,
            "G" => 3,
            "T" => 4,
            "P" => 5,
            _ => return None,
        };
        let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len().min(9));
        let (number, step): (f64, f64) = (number.parse().ok()?, 0.1_f64.powf(decimals as f64));
        let bytes = |number: f64, unit: f64| (number * unit.powi(power)) as u64;
        Some(Self { least: bytes((number - step).max(0.0), 1000.0), most: bytes(number + step, 1024.0) })
    }

    /// Whether a file of `size` bytes fits.
    #[must_use]
    pub fn may_be(self, size: u64) -> bool {
        (self.least..=self.most).contains(&size)
    }

    /// The size in bytes, or the middle of the range.
    #[must_use]
    pub fn about(self) -> u64 {
        self.least.midpoint(self.most)
    }
}

/// Parses the index of the folder `base`, whose path ends with a slash, and passes the decoded name of each direct child to
/// `take`. Links to other places are ignored.
pub fn index(page: &[u8], base: &Url, take: &mut dyn FnMut(&[u8], ListedEntry)) -> Result<(), ListingError> {
    match page.trim_ascii_start().first() {
        Some(b'[') => json::parse(page, base, take),
        None | Some(b'<') => html::parse(page, base, take),
        Some(_) => Err(ListingError::OtherContent),
    }
}

/// The decoded name of the direct child of `base` to which `reference` points, and whether it has a slash at its end.
fn child(base: &Url, reference: &str) -> Result<Option<(Vec<u8>, bool)>, ListingError> {
    if reference.len() > 3 * LONGEST_NAME {
        return Err(ListingError::LongName { bytes: reference.len() });
    }
    let is_near = |url: &Url| url.query().is_none() && is_same_server(url, base);
    let Some(url) = base.join(reference).ok().filter(is_near) else { return Ok(None) };
    let Some(rest) = url.path().strip_prefix(base.path()) else { return Ok(None) };
    let name = rest.strip_suffix('/').unwrap_or(rest);
    let decoded = Some(name).filter(|name| !name.contains('/'));
    let name =
        decoded.map(|name| checked(percent_encoding::percent_decode_str(name).collect())).transpose()?;
    Ok(name.flatten().map(|name| (name, rest.ends_with('/'))))
}

/// Whether two addresses have the same scheme, host and port.
#[must_use]
pub(crate) fn is_same_server(one: &Url, other: &Url) -> bool {
    one[..Position::BeforePath] == other[..Position::BeforePath]
}

/// The name of a file or folder; `None` if no file can have it.
fn checked(name: Vec<u8>) -> Result<Option<Vec<u8>>, ListingError> {
    if name.len() > LONGEST_NAME {
        return Err(ListingError::LongName { bytes: name.len() });
    }
    let is_name = !matches!(&*name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
    Ok(Some(name).filter(|_| is_name))
}

#[cfg(test)]
mod tests;
