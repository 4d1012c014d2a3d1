//! Rewrites a request for [`NamedFile`](actix_files::NamedFile), which evaluates the conditions and the range.
//!
//! The entity tag of `NamedFile` cannot be set, so conditions on our tag are replaced by ones that need no tag: `*`
//! if the tag matches, a tag that matches no file otherwise. `NamedFile` refuses a `Range` that RFC 9110 asks to
//! ignore, and it sends only the first range, so the header is replaced by its first satisfiable part or removed.
//! `NamedFile` evaluates precedence, dates and statuses. Afterwards the request is restored.

use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::dev::ServiceRequest;

use super::range::{self, FilePart, RequestedRanges};
use super::validators::Validators;

/// Matches no file, because the entity tag of `NamedFile` is disabled.
const OTHER_TAG: HeaderValue = HeaderValue::from_static("\"\"");
const ANY_TAG: HeaderValue = HeaderValue::from_static("*");

/// The header lines that may be rewritten.
const REWRITTEN: [HeaderName; 4] = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE, header::RANGE];

/// The original header lines of a request.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    original: Vec<(HeaderName, HeaderValue)>,
    parts: Vec<FilePart>,
}

impl Rewritten {
    /// Rewrites a request for a file with these validators and of this length.
    pub(super) fn apply(request: &mut ServiceRequest, validators: &Validators, length: u64) -> Self {
        let mut rewritten = Self::default();
        for name in REWRITTEN {
            // Most requests have none of these headers and need no rewriting.
            let Some(first) = request.headers().get(&name) else { continue };
            let replacement = match name {
                header::RANGE => {
                    let (range, parts) = replace_range(first, length);
                    rewritten.parts = parts;
                    if range.as_ref() == Some(first) {
                        continue;
                    }
                    range
                }
                header::IF_RANGE if validators.matches_strongly(first.as_bytes()) => None,
                // A date tells versions apart only once its second is over (RFC 9110, section 13.1.5).
                header::IF_RANGE if validators.is_provisional => Some(OTHER_TAG),
                header::IF_RANGE => continue,
                header::IF_MATCH => {
                    Some(replace_tags(request.headers(), &name, |tag| validators.matches_strongly(tag)))
                }
                _ => Some(replace_tags(request.headers(), &name, |tag| validators.matches_weakly(tag))),
            };
            rewritten.replace(request.headers_mut(), &name, replacement);
        }
        rewritten
    }

    fn replace(&mut self, headers: &mut HeaderMap, name: &HeaderName, replacement: Option<HeaderValue>) {
        let removed = match replacement {
            Some(value) => headers.insert(name.clone(), value),
            None => headers.remove(name),
        };
        self.original.extend(removed.map(|value| (name.clone(), value)));
    }

    /// Whether a request has a condition on the modification time.
    pub(super) fn has_date(headers: &HeaderMap) -> bool {
        let names = [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE, header::IF_RANGE];
        names.iter().any(|name| headers.contains_key(name))
    }

    /// Restores the request, and returns the parts of the file that it asks for.
    pub(super) fn restore(self, request: &mut ServiceRequest) -> Vec<FilePart> {
        if !self.original.is_empty() {
            let headers = request.headers_mut();
            for (name, _) in &self.original {
                headers.remove(name);
            }
            for (name, value) in self.original {
                headers.append(name, value);
            }
        }
        self.parts
    }
}

/// The range for `NamedFile`, and the parts that are sent if `NamedFile` grants that range.
fn replace_range(asked: &HeaderValue, length: u64) -> (Option<HeaderValue>, Vec<FilePart>) {
    let (range, parts) = match range::parse(asked.as_bytes(), length) {
        RequestedRanges::Ignored => return (None, Vec::new()),
        RequestedRanges::Unsatisfiable => ((length, None), Vec::new()),
        RequestedRanges::Parts(parts) => {
            let first = parts.first().copied().unwrap_or(FilePart { start: 0, end: length });
            ((first.start, Some(first.end.saturating_sub(1))), parts)
        }
    };
    if is_simple(asked.as_bytes()) {
        return (Some(asked.clone()), parts);
    }
    let range = match range {
        (first, Some(last)) => format!("bytes={first}-{last}"),
        (first, None) => format!("bytes={first}-"),
    };
    (HeaderValue::try_from(range).ok(), parts)
}

/// Whether `NamedFile` understands a valid range without rewriting, as in most requests: a single range of numbers
/// with at most 18 digits. A suffix range must be rewritten, because `NamedFile` overflows on a suffix of an empty
/// file.
fn is_simple(range: &[u8]) -> bool {
    let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    range.strip_prefix(b"bytes=").is_some_and(|range| {
        range.len() < 20 && range.first().is_some_and(u8::is_ascii_digit) && range.iter().all(is_number)
    })
}

fn replace_tags(headers: &HeaderMap, name: &HeaderName, is_equal: impl Fn(&[u8]) -> bool) -> HeaderValue {
    let mut tags = headers.get_all(name).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_listed = tags.any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || is_equal(tag)
    });
    if is_listed { ANY_TAG } else { OTHER_TAG }
}

#[cfg(test)]
mod tests;
