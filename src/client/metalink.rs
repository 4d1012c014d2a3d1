//! Metalink 4 (RFC 5854): a document with mirrors, sizes and digests of files.
//!
//! The XML parser, roxmltree, does not load external entities. Document types are refused, so that entities
//! cannot expand without bound.

use std::path::PathBuf;

use url::Url;

use super::checksum::{Algorithm, Checksum, Pieces};
use super::identity::{Authority, ContentIdentity};
use super::naming;

/// The media type of a Metalink.
const MEDIA_TYPE: &str = "application/metalink4+xml";

/// Maximum size of a Metalink, in bytes.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// Maximum number of XML nodes.
const MAX_NODES: u32 = 1 << 20;

/// Maximum number of mirrors of one file.
const MAX_URLS: usize = 100;

/// Maximum number of unsupported algorithms in a warning.
const MAX_KINDS: usize = 8;

const NAMESPACE: &str = "urn:ietf:params:xml:ns:metalink";

/// Why a Metalink cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetalinkError {
    /// The text is not XML, or its XML exceeds the limits.
    #[error("the Metalink is not well-formed: {0}")]
    Xml(#[from] roxmltree::Error),
    /// The text is too long.
    #[error("the Metalink is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The root element is not `metalink`.
    #[error("the document is not a Metalink 4 (RFC 5854)")]
    OtherDocument,
    /// No file has a usable address.
    #[error("the Metalink names no file with an http or https address")]
    Empty,
    /// A value is invalid.
    #[error("the Metalink has an invalid {element}: {value:?}")]
    Value { element: &'static str, value: String },
}

/// A file of a Metalink.
#[derive(Debug, Clone)]
pub(super) struct MetalinkFile {
    /// The sanitised relative path.
    pub name: PathBuf,
    /// Addresses, best first.
    pub urls: Vec<Url>,
    /// Size and digest, if given.
    pub identity: ContentIdentity,
    /// Digests of the pieces.
    pub pieces: Option<Pieces>,
    /// The algorithms of the digests of the whole file, if all of them are unsupported.
    pub unchecked: Option<String>,
}

/// Whether a `Content-Type` is that of a Metalink.
pub(super) fn is_media_type(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// Parses a Metalink. Returns its files that have a usable address.
pub(super) fn parse(text: &str) -> Result<Vec<MetalinkFile>, MetalinkError> {
    if text.len() > MAX_BYTES {
        return Err(MetalinkError::TooLarge);
    }
    let options =
        roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options)?;
    let root = document.root_element();
    if !root.has_tag_name((NAMESPACE, "metalink")) {
        return Err(MetalinkError::OtherDocument);
    }
    let mut files = Vec::new();
    for node in root.children().filter(|node| node.has_tag_name((NAMESPACE, "file"))) {
        let file = file(node)?;
        if !file.urls.is_empty() {
            files.push(file);
        }
    }
    if files.is_empty() { Err(MetalinkError::Empty) } else { Ok(files) }
}

fn file(node: roxmltree::Node<'_, '_>) -> Result<MetalinkFile, MetalinkError> {
    let children =
        |name: &'static str| node.children().filter(move |child| child.has_tag_name((NAMESPACE, name)));
    let size = children("size").next().map(|child| number("size", text(child))).transpose()?;
    let hashes = || children("hash").filter(|child| child.attribute("type").is_some());
    let digest =
        best(hashes()).map(|(child, algorithm)| digest("hash", algorithm, text(child))).transpose()?;
    let kinds: Vec<&str> = hashes().filter_map(|child| child.attribute("type")).take(MAX_KINDS).collect();
    let unchecked = (digest.is_none() && !kinds.is_empty()).then(|| kinds.join(", "));
    let mut urls: Vec<(u32, Url)> = children("url")
        .filter_map(|child| {
            let url = Url::parse(text(child)).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
            let priority =
                child.attribute("priority").and_then(|value| value.parse().ok()).unwrap_or(u32::MAX);
            Some((priority, url))
        })
        .collect();
    urls.sort_by_key(|(priority, _)| *priority);
    urls.truncate(MAX_URLS);
    let pieces = match (best(children("pieces")), size) {
        (Some((child, algorithm)), Some(size)) => Some(pieces(child, algorithm, size)?),
        _ => None,
    };
    Ok(MetalinkFile {
        name: naming::safe_path(node.attribute("name").unwrap_or_default()),
        urls: urls.into_iter().map(|(_, url)| url).collect(),
        identity: ContentIdentity {
            size,
            digest: digest.map(|digest| (digest, Authority::Given)),
            ..ContentIdentity::default()
        },
        pieces,
        unchecked,
    })
}

fn pieces(node: roxmltree::Node<'_, '_>, algorithm: Algorithm, size: u64) -> Result<Pieces, MetalinkError> {
    let length = number("pieces length", node.attribute("length").unwrap_or_default())?;
    let digests: Vec<Checksum> = node
        .children()
        .filter(|child| child.has_tag_name((NAMESPACE, "hash")))
        .map(|child| digest("piece hash", algorithm, text(child)))
        .collect::<Result<_, _>>()?;
    if length == 0 || size.div_ceil(length) != digests.len() as u64 {
        let value = format!("{} pieces of {length} bytes for {size}", digests.len());
        return Err(MetalinkError::Value { element: "pieces", value });
    }
    Ok(Pieces { length, size, digests: digests.into() })
}

/// The first node with the most preferred algorithm in its `type`.
fn best<'a>(
    nodes: impl Iterator<Item = roxmltree::Node<'a, 'a>>,
) -> Option<(roxmltree::Node<'a, 'a>, Algorithm)> {
    let known = nodes.filter_map(|node| Some((node, Algorithm::named(node.attribute("type")?)?)));
    known.min_by_key(|(_, algorithm)| Algorithm::ALL.iter().position(|other| other == algorithm))
}

fn text<'a>(node: roxmltree::Node<'a, '_>) -> &'a str {
    node.text().unwrap_or_default().trim()
}

fn number(element: &'static str, value: &str) -> Result<u64, MetalinkError> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| is_plain)
        .ok_or_else(|| MetalinkError::Value { element, value: value.to_owned() })
}

fn digest(element: &'static str, algorithm: Algorithm, value: &str) -> Result<Checksum, MetalinkError> {
    Checksum::parse(algorithm, value).ok_or_else(|| MetalinkError::Value { element, value: value.to_owned() })
}

#[cfg(test)]
mod tests;
