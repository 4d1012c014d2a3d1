//! Documents about a file of the catalogue: Metalinks, the checksum, and the list of mirrors.

use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_http::{Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

use super::client_reach::RequestReach;
use super::location::Target;
use crate::balancer::backends::BackendId;
use crate::balancer::catalogue::{self, CatalogueContent, PieceDigests, digits};
use crate::balancer::policy::{self, Holders};
use crate::balancer::presence::generation::{FileLocation, Generation, Location};
use crate::balancer::ranking::table::{Needs, RoutingTable};
use crate::http::pages::{self, Dress, escape};

/// The largest number of mirrors in a document.
const MOST_MIRRORS: usize = 100;

/// The files of a folder that decide whether a server has the folder.
const FOLDER_SAMPLE: usize = 16;

/// The longest name of a file in a document, in characters.
const LONGEST_NAME: usize = 255;

/// A kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DocumentKind {
    /// Metalink 4 (RFC 5854).
    Metalink4,
    /// Metalink 3, for dnf.
    Metalink3,
    /// A line of `sha256sum`.
    Checksum,
    /// The servers of the file or folder.
    Mirrors(MirrorListFormat),
}

/// The format of a list of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MirrorListFormat {
    /// One URL a line.
    Text,
    /// The same with priorities, for `mirror+http` of apt. Without them, apt tries the servers in any order.
    Apt,
    /// An array of objects, for zypper.
    Json,
    /// A page.
    Html,
}

impl MirrorListFormat {
    /// The format that a value of `mirrorlist=` names, or that the client accepts.
    fn of(value: &[u8], headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
        let accepts = |kind: &str| memchr::memmem::find(accept, kind.as_bytes()).is_some();
        match value {
            b"text" => Self::Text,
            b"apt" => Self::Apt,
            b"json" => Self::Json,
            b"html" => Self::Html,
            _ if accepts("application/json") => Self::Json,
            _ if accepts("text/html") => Self::Html,
            _ => Self::Text,
        }
    }
}

/// A document that a request asks for.
#[derive(Debug)]
pub(super) struct Document<'a> {
    kind: DocumentKind,
    /// The path of the file, as the client wrote it.
    path: &'a [u8],
    /// `None` for a folder.
    file: Option<FileLocation<'a>>,
    /// The servers that may have it: those that have at least one of these files.
    holders: Vec<Holders<'a>>,
    pieces: Option<&'a PieceDigests>,
}

impl<'a> Document<'a> {
    /// The document that a request asks for, if it asks for one: `PATH?mirrorlist`, `PATH.meta4`, `PATH.metalink` or
    /// `PATH.sha256`. A file of the catalogue precedes a document of the same name. `location` is the place of the whole path.
    pub(super) fn requested(
        target: &Target<'a>,
        location: &Location<'a>,
        generation: &'a Generation,
        headers: &HeaderMap,
    ) -> Option<Self> {
        let path = target.path();
        let mirrors = || {
            let format = MirrorListFormat::of(mirror_list(target)?, headers);
            Some(DocumentKind::Mirrors(format))
        };
        match location {
            Location::Unknown => {
                let suffixes = [
                    (&b".meta4"[..], DocumentKind::Metalink4),
                    (b".metalink", DocumentKind::Metalink3),
                    (b".sha256", DocumentKind::Checksum),
                ];
                let (path, kind) =
                    suffixes.iter().find_map(|(suffix, kind)| Some((path.strip_suffix(*suffix)?, *kind)))?;
                let Location::File(file) = generation.locate(path, policy::digest(path)) else { return None };
                let has_digest = file.content.sha256.is_some();
                (has_digest || kind != DocumentKind::Checksum).then(|| Self {
                    kind,
                    path,
                    file: Some(file),
                    holders: vec![file.holders],
                    pieces: generation.pieces(file.key).filter(|_| kind == DocumentKind::Metalink4),
                })
            }
            Location::File(file) => Some(Self {
                kind: mirrors()?,
                path,
                file: Some(*file),
                holders: vec![file.holders],
                pieces: None,
            }),
            Location::Folder(folder) => {
                let kind = mirrors()?;
                let files = generation.catalogue.some_files_below(folder, FOLDER_SAMPLE);
                let holders = files.filter_map(|file| match generation.at(catalogue::key(file.path))? {
                    Location::File(file) => Some(file.holders),
                    Location::Folder(_) | Location::Unknown => None,
                });
                Some(Self { kind, path, file: None, holders: holders.collect(), pieces: None })
            }
        }
    }

    /// The answer for a client with these needs and this reach.
    pub(super) fn answer(
        &self,
        table: &RoutingTable,
        needs: Needs,
        reach: Option<&RequestReach<'_>>,
    ) -> Response<Bytes> {
        let mirrors = self.mirrors(table, needs, reach);
        let mut text = BytesMut::new();
        let kind = match self.kind {
            DocumentKind::Metalink4 => {
                self.put_metalink4(&mirrors, &mut text);
                "application/metalink4+xml"
            }
            DocumentKind::Metalink3 => {
                self.put_metalink3(&mirrors, &mut text);
                "application/metalink+xml"
            }
            DocumentKind::Checksum => {
                text.put_slice(self.digits().as_bytes());
                text.put_slice(format!("  {}\n", self.name()).as_bytes());
                "text/plain; charset=utf-8"
            }
            DocumentKind::Mirrors(MirrorListFormat::Json) => {
                let urls: Vec<_> =
                    mirrors.iter().map(|mirror| serde_json::json!({ "url": self.url(mirror) })).collect();
                // Strings can always be serialized.
                text.put_slice(&serde_json::to_vec(&urls).unwrap_or_default());
                text.put_u8(b'\n');
                "application/json"
            }
            DocumentKind::Mirrors(MirrorListFormat::Html) => {
                text.put_slice(&self.page(&mirrors));
                "text/html; charset=utf-8"
            }
            DocumentKind::Mirrors(format) => {
                for (priority, mirror) in (1..).zip(&mirrors) {
                    text.put_slice(self.url(mirror).as_bytes());
                    if format == MirrorListFormat::Apt {
                        text.put_slice(format!("\tpriority:{priority}").as_bytes());
                    }
                    text.put_u8(b'\n');
                }
                "text/plain; charset=utf-8"
            }
        };
        let mut response = Response::with_body(StatusCode::OK, text.freeze());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self.kind, DocumentKind::Mirrors(_)) {
            headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        }
        response
    }

    /// The usable servers that have the file, best first.
    fn mirrors<'t>(
        &self,
        table: &'t RoutingTable,
        needs: Needs,
        reach: Option<&RequestReach<'_>>,
    ) -> Vec<&'t BackendId> {
        let holds = |number: u32| self.holders.iter().any(|holders| holders.contains(number));
        let size = self.content().size;
        table.ranked(needs, MOST_MIRRORS, |entry| {
            let number = entry.load.number();
            let rank = reach.map_or(Some(0), |reach| reach.rank(number, size));
            rank.filter(|_| holds(number))
        })
    }

    fn url(&self, mirror: &BackendId) -> String {
        let path = String::from_utf8_lossy(self.path);
        // Clients append the name of a file to the URL of a folder.
        let slash = if self.file.is_none() && !path.ends_with('/') { "/" } else { "" };
        format!("{mirror}{path}{slash}")
    }

    /// The decoded name of the file.
    fn name(&self) -> String {
        let name = self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = percent_encoding::percent_decode(name).decode_utf8_lossy();
        name.chars().filter(|character| !character.is_control()).take(LONGEST_NAME).collect()
    }

    fn content(&self) -> CatalogueContent {
        self.file.map(|file| file.content).unwrap_or_default()
    }

    /// The digest in hexadecimal digits; empty if it is unknown.
    fn digits(&self) -> String {
        self.content().sha256.as_ref().map(digits).unwrap_or_default()
    }

    fn put_metalink4(&self, mirrors: &[&BackendId], text: &mut BytesMut) {
        text.put_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        text.put_slice(
            b"<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n  <generator>fingerpost</generator>\n",
        );
        text.put_slice(b"  <file name=\"");
        escape(&self.name(), text);
        text.put_slice(b"\">\n");
        if let Some(size) = self.content().size {
            text.put_slice(format!("    <size>{size}</size>\n").as_bytes());
        }
        if self.content().sha256.is_some() {
            text.put_slice(format!("    <hash type=\"sha-256\">{}</hash>\n", self.digits()).as_bytes());
        }
        if let Some(PieceDigests { length, digests }) = self.pieces {
            text.put_slice(format!("    <pieces length=\"{length}\" type=\"sha-256\">\n").as_bytes());
            for digest in digests {
                text.put_slice(format!("      <hash>{}</hash>\n", digits(digest)).as_bytes());
            }
            text.put_slice(b"    </pieces>\n");
        }
        for (priority, mirror) in (1..).zip(mirrors) {
            text.put_slice(format!("    <url priority=\"{priority}\">").as_bytes());
            escape(&self.url(mirror), text);
            text.put_slice(b"</url>\n");
        }
        text.put_slice(b"  </file>\n</metalink>\n");
    }

    fn put_metalink3(&self, mirrors: &[&BackendId], text: &mut BytesMut) {
        text.put_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        text.put_slice(
            b"<metalink version=\"3.0\" xmlns=\"http://www.metalinker.org/\" generator=\"fingerpost\">\n",
        );
        text.put_slice(b"  <files>\n    <file name=\"");
        escape(&self.name(), text);
        text.put_slice(b"\">\n");
        if let Some(size) = self.content().size {
            text.put_slice(format!("      <size>{size}</size>\n").as_bytes());
        }
        if self.content().sha256.is_some() {
            let hash = format!("<hash type=\"sha256\">{}</hash>", self.digits());
            text.put_slice(format!("      <verification>{hash}</verification>\n").as_bytes());
        }
        text.put_slice(b"      <resources>\n");
        for (preference, mirror) in (1..=100).rev().zip(mirrors) {
            let scheme = if mirror.is_https() { "https" } else { "http" };
            text.put_slice(
                format!("        <url protocol=\"{scheme}\" type=\"{scheme}\" preference=\"{preference}\">")
                    .as_bytes(),
            );
            escape(&self.url(mirror), text);
            text.put_slice(b"</url>\n");
        }
        text.put_slice(b"      </resources>\n    </file>\n  </files>\n</metalink>\n");
    }

    fn page(&self, mirrors: &[&BackendId]) -> Bytes {
        let mut title = BytesMut::from("Mirrors of ");
        escape(&self.name(), &mut title);
        let mut content = BytesMut::from("<ul>\n");
        for mirror in mirrors {
            let mut url = BytesMut::new();
            escape(&self.url(mirror), &mut url);
            content.put_slice(b"<li><a href=\"");
            content.put_slice(&url);
            content.put_slice(b"\">");
            content.put_slice(&url);
            content.put_slice(b"</a>\n");
        }
        content.put_slice(b"</ul>\n");
        if self.content().sha256.is_some() {
            content.put_slice(format!("<p>SHA-256: <code>{}</code></p>\n", self.digits()).as_bytes());
        }
        pages::dress(&Dress { title: &title, style: "", heading: &title, content: &content })
    }
}

/// The value of the parameter `mirrorlist` if it is the first one of the query; empty for a parameter without a value.
pub(super) fn mirror_list<'a>(target: &Target<'a>) -> Option<&'a [u8]> {
    let query = target.as_bytes().get(target.path().len() + 1..)?;
    let rest = query.split(|byte| *byte == b'&').next()?.strip_prefix(b"mirrorlist")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"=") }
}

/// The header lines of a redirect for a file of the catalogue: its digest in two forms, and the link to its Metalink.
///
/// Clients of RFC 3230, such as aria2, do not know `Repr-Digest` of RFC 9530.
pub(super) fn lines_of(path: &[u8], content: &CatalogueContent, mut put: impl FnMut(&'static str, &[u8])) {
    if let Some(sha256) = content.sha256 {
        let mut digest = [0; 44];
        // A digest of 32 bytes always has 44 characters.
        if STANDARD.encode_slice(sha256, &mut digest).is_ok() {
            let mut value = [0; 54];
            put("Digest", joined(&mut value, [b"SHA-256=", &digest, b""]));
            put("Repr-Digest", joined(&mut value, [b"sha-256=:", &digest, b":"]));
        }
    }
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    // A bracket in the name would end the URL in the angle brackets.
    if memchr::memchr2(b'<', b'>', name).is_none() {
        let mut link = BytesMut::with_capacity(name.len() + 80);
        link.put_slice(b"<./");
        link.put_slice(name);
        link.put_slice(b".meta4>; rel=describedby; type=\"application/metalink4+xml\"");
        put("Link", &link);
    }
}

/// Joins parts in a buffer that is large enough.
fn joined<'b>(buffer: &'b mut [u8; 54], parts: [&[u8]; 3]) -> &'b [u8] {
    let mut length = 0;
    for part in parts {
        if let Some(place) = buffer.get_mut(length..length + part.len()) {
            place.copy_from_slice(part);
            length += part.len();
        }
    }
    buffer.get(..length).unwrap_or_default()
}

/// Adds these lines to an answer.
pub(super) fn add_lines(path: &[u8], content: &CatalogueContent, headers: &mut HeaderMap) {
    lines_of(path, content, |name, value| {
        // Both are visible ASCII.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    });
}
