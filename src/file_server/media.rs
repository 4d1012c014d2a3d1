//! The media type of a file, from its name.

use std::path::Path;

use actix_web::mime::{APPLICATION_OCTET_STREAM, Mime};

/// Extensions for which actix-files has no type, or a type that differs from that of mirrors, nginx and Apache.
const OVERRIDES: [(&str, &[&str]); 18] = [
    ("application/gzip", &["tgz"]),
    ("application/json", &["map"]),
    // aab: an app bundle of Android, not Authorware. raw: a disk image, not a photograph.
    ("application/octet-stream", &["aab", "raw"]),
    ("application/vnd.apple.mpegurl", &["m3u8"]),
    ("application/vnd.debian.binary-package", &["ddeb", "deb", "udeb"]),
    ("application/x-bzip2", &["tbz", "tbz2"]),
    ("application/x-lz4", &["lz4"]),
    ("application/x-lzip", &["lz"]),
    ("application/x-lzma", &["lzma"]),
    ("application/x-rpm", &["drpm", "rpm", "srpm"]),
    ("application/x-xz", &["txz"]),
    ("application/zstd", &["tzst", "zst"]),
    ("font/otf", &["otf"]),
    ("font/woff", &["woff"]),
    ("model/stl", &["stl"]),
    ("text/javascript", &["mjs"]),
    (
        "text/plain",
        &[
            "b2",
            "buildinfo",
            "changes",
            "diff",
            "dsc",
            "md5",
            "md5sum",
            "patch",
            "sha1",
            "sha1sum",
            "sha256",
            "sha256sum",
            "sha512",
            "sha512sum",
        ],
    ),
    ("video/mp2t", &["ts"]),
];

/// The media type for a file name. Text has the charset UTF-8; an unknown extension is `application/octet-stream`.
pub(super) fn media_type(name: &[u8]) -> Mime {
    let name = String::from_utf8_lossy(name);
    let extension =
        Path::new(&*name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_listed = |endings: &[&str]| endings.iter().any(|ending| extension.eq_ignore_ascii_case(ending));
    let media = match OVERRIDES.iter().find(|(_, endings)| is_listed(endings)) {
        Some((media, _)) => media.parse().unwrap_or(APPLICATION_OCTET_STREAM),
        None => actix_files::file_extension_to_mime(extension),
    };
    let is_text = media.type_() == "text" || media.subtype() == "javascript" || media.subtype() == "json";
    if !is_text || media.get_param("charset").is_some() {
        return media;
    }
    format!("{media}; charset=utf-8").parse().unwrap_or(media)
}

#[cfg(test)]
mod tests;
