use super::*;
use crate::balancer::backends::list;

fn location(target: &str) -> Result<String, TargetError> {
    let list = list::parse(b"https://mirror.example/pub");
    let target = Target::parse(target.as_bytes())?;
    Ok(String::from_utf8(target.location(list.backends[0].id()).to_vec()).unwrap())
}

#[test]
fn path_and_query_are_unchanged() {
    for target in [
        "/",
        "/plshelp.txt",
        "/files/a%20b%2Fc.iso?x=1&y=%2e%2e/../z",
        "/a//b",
        "/a.b/...x/..c/.hidden/...",
        "/100%/%zz/%",
        "/?//evil",
        "/a;b=c,d'e(f)*!~$",
        "/sub%0d%0aX:1",
    ] {
        assert_eq!(location(target).unwrap(), format!("https://mirror.example:443/pub{target}"));
    }
}

#[test]
fn the_authority_of_an_absolute_target_is_ignored() {
    for (target, path) in [
        ("http://evil.example/y?z", "/y?z"),
        ("HTTPS://evil.example:1/y", "/y"),
        ("http://evil.example", "/"),
    ] {
        assert_eq!(location(target).unwrap(), format!("https://mirror.example:443/pub{path}"));
    }
}

#[test]
fn a_target_that_could_resolve_to_another_location_is_refused() {
    for (target, refusal) in [
        ("", TargetError::NoPath),
        ("*", TargetError::NoPath),
        ("evil.example:443", TargetError::NoPath),
        ("evil", TargetError::NoPath),
        ("?x", TargetError::NoPath),
        ("@evil.example/", TargetError::NoPath),
        (".evil.example/", TargetError::NoPath),
        ("ftp://evil.example/x", TargetError::NoPath),
        ("http:///x", TargetError::NoPath),
        ("http://", TargetError::NoPath),
        ("http://a\\b/c", TargetError::NoPath),
        ("//evil.example/x", TargetError::DoubleSlash),
        ("http://a//evil.example/x", TargetError::DoubleSlash),
        ("/\\evil.example/x", TargetError::Character),
        ("/x?\\", TargetError::Character),
        ("/x#y", TargetError::Character),
        ("/a b", TargetError::Character),
        ("/a\r\nX: y", TargetError::Character),
        ("/a\0", TargetError::Character),
        ("/a\u{7f}", TargetError::Character),
        ("/\u{e9}", TargetError::Character),
        ("/../x", TargetError::DotSegment),
        ("/a/..", TargetError::DotSegment),
        ("/./x", TargetError::DotSegment),
        ("/%2e%2e/x", TargetError::DotSegment),
        ("/a/.%2E", TargetError::DotSegment),
        ("/%2e", TargetError::DotSegment),
        ("/a/%2e%2e%2fx", TargetError::DotSegment),
        ("/..%5cx", TargetError::DotSegment),
        ("/a%2f..", TargetError::DotSegment),
        ("/a/..?b", TargetError::DotSegment),
    ] {
        assert_eq!(location(target), Err(refusal), "{target:?}");
    }
}

#[test]
fn the_path_ends_before_the_query() {
    assert_eq!(Target::parse(b"/a?b?c").unwrap().path(), b"/a");
    assert_eq!(Target::parse(b"/a").unwrap().path(), b"/a");
}
