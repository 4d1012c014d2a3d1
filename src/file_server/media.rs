//! The content type of a file, by its name.

use std::path::Path;

use actix_http::header::HeaderValue;

/// The `Content-Type` of a file of this name: text says that it is UTF-8, an unknown ending is a stream of bytes.
#[must_use]
pub fn content_type(name: &[u8]) -> HeaderValue {
    let name = String::from_utf8_lossy(name);
    let extension =
        Path::new(&*name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let media = actix_files::file_extension_to_mime(extension);
    let is_text = media.type_() == "text" || media.subtype() == "javascript" || media.subtype() == "json";
    let text = if is_text && media.get_param("charset").is_none() {
        format!("{media}; charset=utf-8")
    } else {
        media.to_string()
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_ending() {
        for (name, expected) in [
            ("a.png", "image/png"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.HTML", "text/html; charset=utf-8"),
            ("a.json", "application/json; charset=utf-8"),
            ("a.iso", "application/octet-stream"),
            ("a.tar.gz", "application/gzip"),
            ("README", "application/octet-stream"),
            ("sub.png/README", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
    }
}
