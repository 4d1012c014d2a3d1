use super::*;

#[test]
fn types_follow_the_extension() {
    for (expected, names) in [
        (
            "application/octet-stream",
            "iso img bin whl AppImage exe dmg msi qcow2 raw aab snap flatpak unknown",
        ),
        ("application/gzip", "gz tgz tar.gz"),
        ("application/x-xz", "xz txz tar.xz"),
        ("application/x-bzip2", "bz2 tbz2"),
        ("application/zstd", "zst tar.zst pkg.tar.zst"),
        ("application/x-lzip", "lz"),
        ("application/x-tar", "tar"),
        ("application/zip", "zip"),
        ("application/x-7z-compressed", "7z"),
        ("application/x-rpm", "rpm RPM drpm"),
        ("application/vnd.debian.binary-package", "deb udeb"),
        ("application/vnd.android.package-archive", "apk"),
        ("application/java-archive", "jar"),
        ("application/pgp-signature", "asc sig"),
        ("application/x-bittorrent", "torrent"),
        ("application/metalink4+xml", "meta4"),
        ("application/pdf", "pdf"),
        ("application/wasm", "wasm"),
        ("application/json; charset=utf-8", "json"),
        ("text/xml; charset=utf-8", "xml"),
        ("text/javascript; charset=utf-8", "js mjs"),
        ("text/css; charset=utf-8", "css"),
        ("text/html; charset=utf-8", "html htm HTML"),
        ("text/plain; charset=utf-8", "txt log conf sha256 sha512sum md5 patch diff dsc"),
        ("text/markdown; charset=utf-8", "md"),
        ("text/csv; charset=utf-8", "csv"),
        ("text/x-yaml; charset=utf-8", "yaml yml"),
        ("text/x-toml; charset=utf-8", "toml"),
        ("image/svg+xml", "svg"),
        ("image/png", "png"),
        ("image/jpeg", "jpg jpeg"),
        ("image/webp", "webp"),
        ("image/avif", "avif"),
        ("image/x-icon", "ico"),
        ("video/mp4", "mp4"),
        ("video/webm", "webm"),
        ("video/mp2t", "ts"),
        ("application/vnd.apple.mpegurl", "m3u8"),
        ("audio/mpeg", "mp3"),
        ("audio/flac", "flac"),
        ("font/woff2", "woff2"),
        ("font/woff", "woff"),
        ("font/ttf", "ttf"),
    ] {
        for ending in names.split(' ') {
            let name = format!("sub.png/name-1.0.{ending}");
            assert_eq!(media_type(name.as_bytes()).to_string(), expected, "{name}");
        }
    }
    for name in ["README", "sub.png/README", ".rpm", "name.", "\u{e9}"] {
        assert_eq!(media_type(name.as_bytes()), APPLICATION_OCTET_STREAM, "{name}");
    }
}
