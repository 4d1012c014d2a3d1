//! The HTML pages of errors and redirects, and the [common look](dress) of all pages.
//!
//! The common look is `pages/template.html`. A folder given at start replaces single pages by files named after their
//! status, such as `404.html`; pages without a file stay the built-in ones. A custom redirect page may contain
//! `{{location}}`, which is replaced by the escaped address.
//!
//! ```
//! use actix_http::StatusCode;
//! use fingerpost::http::Pages;
//!
//! let pages = Pages::built_in();
//! let answer = pages.answer(StatusCode::SERVICE_UNAVAILABLE);
//! assert_eq!(answer.headers().get("cache-control").unwrap(), "no-store");
//! let page = pages.redirect(StatusCode::MOVED_PERMANENTLY, "http://127.0.0.1:8081/plshelp.txt");
//! assert!(page.starts_with(b"<!DOCTYPE html>"));
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_http::header::{self, HeaderValue};
use actix_http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};

const TEMPLATE: &str = include_str!("pages/template.html");

/// The page without the common look.
const PLAIN_TEMPLATE: &str =
    "<!DOCTYPE html><html lang=\"en\"><title>{{code}} {{title}}</title><p>{{text}}</p>\n";

/// The placeholder of the address in a redirect page.
const LOCATION: &str = "{{location}}";

/// Maximum size of a custom page, in bytes; each page is held in memory.
const PAGE_LIMIT: u64 = 1 << 20;

/// Every status with a page, its title and its text.
const TEXTS: [(u16, &str, &str); 16] = [
    (301, "Moved", REDIRECT_TEXT),
    (302, "Found", REDIRECT_TEXT),
    (307, "Temporary Redirect", REDIRECT_TEXT),
    (308, "Permanent Redirect", REDIRECT_TEXT),
    (
        400,
        "Bad Request",
        "The server did not understand the request. Check the address, \
         including http:// or https://, and the program that sent it.",
    ),
    (403, "Forbidden", "You are not allowed to read this file."),
    (404, "Not Found", "This server has no file of this name. Check the spelling, capital letters included."),
    (408, "Request Timeout", "The request did not arrive in time. Send it again."),
    (
        412,
        "Precondition Failed",
        "The file is not in the state that the request requires. It may have changed.",
    ),
    (414, "URI Too Long", "The address is too long for this server."),
    (416, "Range Not Satisfiable", "The file does not have the requested part. It may have become shorter."),
    (431, "Request Header Fields Too Large", "The header of the request is too large for this server."),
    (
        500,
        "Internal Server Error",
        "The server failed to answer this request. The log of the server has the reason.",
    ),
    (501, "Not Implemented", "This server answers GET and HEAD only."),
    (
        503,
        "Service Unavailable",
        "No server can take this request at the moment. Please try again in a few seconds.",
    ),
    (505, "HTTP Version Not Supported", "This server speaks HTTP/1.1 and HTTP/1.0."),
];

const REDIRECT_TEXT: &str = "The file is at <a href=\"{{location}}\">{{location}}</a>.";

/// Why the folder of custom pages cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The folder itself cannot be read.
    #[error("cannot read the folder of error pages {}: check that it exists and is readable", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A page exists and cannot be read.
    #[error("cannot read the error page {}: make it readable, or remove it to use the built-in one", path.display())]
    StatusPage {
        /// The page.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A page is larger than [`PAGE_LIMIT`].
    #[error("the error page {} is larger than {PAGE_LIMIT} bytes: make it smaller, or remove it to use the built-in one", path.display())]
    TooLarge {
        /// The page.
        path: PathBuf,
    },
}

/// A page for each status. Clones are cheap and share the pages between threads.
#[derive(Debug, Clone)]
pub struct Pages(Arc<[StatusPage]>);

#[derive(Debug)]
struct StatusPage {
    status: u16,
    html: Bytes,
    /// The page, cut at each placeholder; a single piece if there is no placeholder.
    pieces: Vec<Bytes>,
}

impl StatusPage {
    fn new(status: u16, html: Bytes) -> Self {
        let mut pieces = Vec::new();
        let mut start = 0;
        for found in memchr::memmem::find_iter(&html, LOCATION) {
            pieces.push(html.slice(start..found));
            start = found + LOCATION.len();
        }
        pieces.push(html.slice(start..));
        Self { status, html, pieces }
    }
}

impl Pages {
    /// The pages that are part of the program.
    #[must_use]
    pub fn built_in() -> Self {
        Self(
            TEXTS
                .iter()
                .map(|(status, title, text)| StatusPage::new(*status, render(*status, title, text)))
                .collect(),
        )
    }

    /// The pages in a folder, such as `404.html`, and the built-in pages for all other statuses.
    pub fn load(folder: &Path) -> Result<Self, PagesError> {
        std::fs::read_dir(folder).map_err(|source| PagesError::Folder { path: folder.to_owned(), source })?;
        let mut pages = Vec::with_capacity(TEXTS.len());
        for (status, title, text) in TEXTS {
            let html = match read(&folder.join(format!("{status}.html")))? {
                Some(own) => own,
                None => render(status, title, text),
            };
            pages.push(StatusPage::new(status, html));
        }
        Ok(Self(pages.into()))
    }

    /// The page of an error. A status without a page gets that of 500, or of 400 if it is below 500.
    pub(crate) fn html(&self, status: StatusCode) -> Bytes {
        self.find(status).map(|page| page.html.clone()).unwrap_or_default()
    }

    /// The page of a redirect to `location`, which this function escapes.
    #[must_use]
    pub fn redirect(&self, status: StatusCode, location: &str) -> Bytes {
        let mut html = BytesMut::new();
        self.put_redirect(status, location.as_bytes(), &mut html);
        html.freeze()
    }

    /// Appends the page of a redirect to `location`, which must be visible ASCII.
    pub(crate) fn put_redirect(&self, status: StatusCode, location: &[u8], html: &mut BytesMut) {
        let Some((last, pieces)) = self.find(status).and_then(|page| page.pieces.split_last()) else {
            return;
        };
        html.reserve(
            last.len() + pieces.iter().map(|piece| piece.len() + location.len() + 16).sum::<usize>(),
        );
        let is_plain = !has_special(location);
        for piece in pieces {
            html.extend_from_slice(piece);
            if is_plain {
                html.extend_from_slice(location);
            } else {
                escape_bytes(location, html);
            }
        }
        html.extend_from_slice(last);
    }

    /// A complete answer with the page of an error, its content type, `no-store` and `nosniff`.
    ///
    /// It is also the answer to HEAD: the connection omits the page and sends its length.
    #[must_use]
    pub fn answer(&self, status: StatusCode) -> Response<Bytes> {
        let mut answer = Response::with_body(status, self.html(status));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    fn find(&self, status: StatusCode) -> Option<&StatusPage> {
        let of = |code: u16| self.0.iter().find(|page| page.status == code);
        of(status.as_u16()).or_else(|| of(if status.is_server_error() { 500 } else { 400 }))
    }
}

/// Appends text, and escapes the characters with a meaning in HTML, quotes included.
pub(crate) fn escape(text: &str, html: &mut BytesMut) {
    escape_bytes(text.as_bytes(), html);
}

fn escape_bytes(text: &[u8], html: &mut BytesMut) {
    for byte in text {
        html.extend_from_slice(match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'"' => b"&quot;",
            b'\'' => b"&#39;",
            byte => std::slice::from_ref(byte),
        });
    }
}

/// Whether text has a character with a meaning in HTML.
fn has_special(text: &[u8]) -> bool {
    memchr::memchr3(b'&', b'<', b'>', text).or_else(|| memchr::memchr2(b'"', b'\'', text)).is_some()
}

/// The content of a page in the common look. All fields are HTML; text from outside must be escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dress<'a> {
    /// The title of the browser window.
    pub title: &'a [u8],
    /// CSS rules in addition to the common ones.
    pub style: &'a str,
    /// The heading.
    pub heading: &'a [u8],
    /// The content below the heading.
    pub content: &'a [u8],
}

/// A page of the common look.
pub(crate) fn dress(dress: &Dress<'_>) -> Bytes {
    let Dress { title, style, heading, content } = *dress;
    let length = TEMPLATE.len() + title.len() + style.len() + heading.len() + content.len();
    let mut html = BytesMut::with_capacity(length);
    // The template is split only once, so that a placeholder within a field is not replaced.
    for piece in TEMPLATE.split("{{") {
        let (place, rest) = piece.split_once("}}").unwrap_or(("", piece));
        html.extend_from_slice(match place {
            "title" => title,
            "style" => style.as_bytes(),
            "heading" => heading,
            "content" => content,
            _ => b"",
        });
        html.extend_from_slice(rest.as_bytes());
    }
    html.freeze()
}

fn render(status: u16, title: &str, text: &str) -> Bytes {
    // Browsers follow a redirect without showing its page, and every redirect carries it.
    if (300..400).contains(&status) {
        return PLAIN_TEMPLATE
            .replace("{{code}}", &status.to_string())
            .replace("{{title}}", title)
            .replace("{{text}}", text)
            .into();
    }
    dress(&Dress {
        title: format!("{status} {title}").as_bytes(),
        style: "",
        heading: format!("<b>{status}</b> {title}").as_bytes(),
        content: format!("<p>{text}</p>").as_bytes(),
    })
}

fn read(path: &Path) -> Result<Option<Bytes>, PagesError> {
    let failed = |source| PagesError::StatusPage { path: path.to_owned(), source };
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if size > PAGE_LIMIT {
        return Err(PagesError::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map(|page| Some(page.into())).map_err(failed)
}

#[cfg(test)]
mod tests;
