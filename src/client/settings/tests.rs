use super::*;
use crate::client::exit_code::GetCode;

#[test]
fn an_address_needs_scheme_and_host() {
    for bad in ["127.0.0.1:80/f", "host:80/f", "h/f", "http://", "", "file"] {
        assert!(matches!(parse_url(bad), Err(DownloadError::InvalidUrl { .. })), "{bad}");
    }
    assert_eq!(parse_url("ftp://host/f").unwrap_err().code(), GetCode::UnsupportedProtocol);
    parse_url("http://host:80/f").unwrap();
}

#[test]
fn header_lines_cannot_contain_other_headers() {
    parse_header("X-Token: abc").unwrap();
    for bad in ["X", "X y: z", "X: a\r\nY: b", "Range: bytes=0-1", "HOST: h", ": x"] {
        assert_eq!(parse_header(bad).unwrap_err().code(), GetCode::Usage, "{bad}");
    }
}

#[test]
fn comments_in_lists_are_skipped() {
    let list: Vec<_> = addresses("# mirrors\n\nhttp://a/f\r\n  http://b/f  \n").collect();
    assert_eq!(list, ["http://a/f", "http://b/f"]);
}

#[test]
fn lists_in_common_charsets_are_decoded() {
    let utf16 = |mark: [u8; 2], pair: fn(u16) -> [u8; 2]| {
        let units = "http://a/ü\r\n".encode_utf16().flat_map(pair);
        mark.into_iter().chain(units).collect::<Vec<u8>>()
    };
    for (bytes, expected) in [
        (b"\xEF\xBB\xBFhttp://a/f".to_vec(), "http://a/f"),
        (b"http://a/\xFC".to_vec(), "http://a/%FC"),
        (utf16([0xFF, 0xFE], u16::to_le_bytes), "http://a/ü\r\n"),
        (utf16([0xFE, 0xFF], u16::to_be_bytes), "http://a/ü\r\n"),
    ] {
        assert_eq!(decoded(&bytes), expected);
    }
}
