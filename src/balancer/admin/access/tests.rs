use actix_web::http::header::HeaderValue;

use super::*;

const TOKEN: &str = "0123456789abcdef";

fn status(token: Option<&str>, lines: &[(&'static str, &str)]) -> u16 {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let peer = Some(IpAddr::from([127, 0, 0, 1]));
    Access::new(token).authorize(&headers, peer).map_or_else(|problem| problem.status.as_u16(), |_| 200)
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn without_a_token_only_json_of_the_own_origin_at_a_loopback_host_is_permitted() {
    for host in ["127.0.0.1:9100", "localhost", "LocalHost:1", "[::1]:9100", "127.9.9.9"] {
        assert_eq!(status(None, &[JSON, ("host", host)]), 200, "{host}");
        let origin = format!("http://{host}");
        assert_eq!(status(None, &[JSON, ("host", host), ("origin", &origin)]), 200, "{host}");
    }
    for host in ["evil.example:9100", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil.example"] {
        assert_eq!(status(None, &[JSON, ("host", host)]), 403, "{host}");
    }
    let host = ("host", "127.0.0.1:9100");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:9101", "http://127.0.0.1", ""] {
        assert_eq!(status(None, &[JSON, host, ("origin", origin)]), 403, "{origin}");
    }
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
    {
        assert_eq!(status(None, &[("content-type", kind), host]), 415, "{kind}");
    }
    assert_eq!(status(None, &[host]), 415);
    assert_eq!(status(None, &[("content-type", "Application/JSON; charset=utf-8"), host]), 200);
}

#[test]
fn with_a_token_every_write_needs_it_or_its_cookie() {
    let write = |line: (&'static str, &str)| status(Some(TOKEN), &[JSON, ("host", "lb.example:9100"), line]);
    assert_eq!(write(("x", "")), 401);
    assert_eq!(write(("authorization", &format!("Bearer {TOKEN}"))), 200);
    assert_eq!(write(("authorization", &format!("bearer  {TOKEN} "))), 200);
    for wrong in ["Bearer 0123456789abcdeg", "Bearer ", "Basic 0123456789abcdef", TOKEN] {
        assert_eq!(write(("authorization", wrong)), 401, "{wrong}");
    }
    let cookie = Access::new(Some(TOKEN)).cookie().unwrap();
    let cookie = cookie.split(';').next().unwrap();
    assert!(!cookie.contains(TOKEN));
    assert_eq!(write(("cookie", &format!("a=b; {cookie}"))), 200);
    assert_eq!(write(("cookie", &cookie.replace("admin=", "admin=0"))), 401);
    let foreign = [JSON, ("host", "lb.example:9100"), ("cookie", cookie), ("origin", "http://evil.example")];
    assert_eq!(status(Some(TOKEN), &foreign), 403);
}

#[test]
fn only_a_file_of_the_owner_with_a_token_is_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let read = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read_token(&path).map_err(|error| error.to_string())
    };
    assert_eq!(read("0123456789abcdef\n", 0o600).as_deref(), Ok(TOKEN));
    assert!(read(TOKEN, 0o640).unwrap_err().contains("0640, so other users can use it: chmod 600"));
    for text in ["", "short", "two words of a token", "\u{e4}0123456789abcdef"] {
        assert!(read(text, 0o600).unwrap_err().contains("openssl rand -hex 32"), "{text}");
    }
}
