//! Tests of lines and lists.

use super::*;

fn only(line: &str) -> Backend {
    let list = parse(line.as_bytes());
    assert_eq!(list.problems, [], "{line:?}");
    let [backend] = list.backends.try_into().unwrap();
    backend
}

fn problem(line: &str) -> String {
    let list = parse(line.as_bytes());
    assert!(list.backends.is_empty(), "{line:?} must not count: {:?}", list.backends);
    let [problem]: [ListProblem; 1] = list.problems.try_into().unwrap();
    problem.to_string()
}

#[test]
fn the_list_of_the_seed_system_is_read_without_its_last_newline() {
    let list = parse(b"127.0.0.1:8081\n127.0.0.1:8082\n127.0.0.1:8083");
    let ids: Vec<_> = list.backends.iter().map(|backend| backend.id().as_str()).collect();
    assert_eq!(ids, ["http://127.0.0.1:8081", "http://127.0.0.1:8082", "http://127.0.0.1:8083"]);
    assert!(list.problems.is_empty());
}

#[test]
fn different_spellings_of_an_address_have_one_identity() {
    for (line, id) in [
        ("localhost:8081", "http://localhost:8081"),
        ("LocalHost:8081", "http://localhost:8081"),
        ("http://localhost:8081/", "http://localhost:8081"),
        ("HTTP://localhost", "http://localhost:80"),
        ("https://mirror.example/pub/", "https://mirror.example:443/pub"),
        ("[0:0:0:0:0:0:0:1]:8081", "http://[::1]:8081"),
        ("http://[::1]", "http://[::1]:80"),
        ("a_b.example:08081", "http://a_b.example:8081"),
        ("https://m.example:8443/a%20b/~c", "https://m.example:8443/a%20b/~c"),
    ] {
        assert_eq!(only(line).id().as_str(), id, "{line}");
    }
}

#[test]
fn the_authority_is_host_and_port() {
    assert_eq!(only("https://mirror.example/pub").id().authority(), "mirror.example:443");
    assert_eq!(only("[::1]:8081").id().authority(), "[::1]:8081");
    assert_eq!(only("localhost:1").id().authority(), "localhost:1");
}

#[test]
fn attributes_follow_the_server_in_any_order() {
    let backend = only("h:1\tzone=eu-west.1  tier=3 weight=1000 # the big one");
    assert_eq!((backend.weight(), backend.tier(), backend.zone()), (1000, 3, Some("eu-west.1")));
    let mirror = only("h:1 proof=dists/a%20b origin");
    assert_eq!((mirror.proof().map(|proof| &**proof), mirror.is_origin()), (Some("/dists/a%20b"), true));
    assert_eq!(only(&mirror.to_string()), mirror);
    for (given, address) in [
        ("rsync://m.example/debian", "rsync://m.example/debian/"),
        ("https://m.example:444/a%20b/", "https://m.example:444/a%20b/"),
        ("http://[::1]:81", "http://[::1]:81/"),
    ] {
        let scanned = only(&format!("h:1 scan={given}"));
        assert_eq!(scanned.scan().unwrap().as_str(), address);
        assert_eq!(only(&scanned.to_string()), scanned);
    }
    let expecting = only("h:1 expect=text:I%20am%20a%23%25 tier=1");
    assert_eq!(expecting.expectation().unwrap().to_string(), "text:I am a#%");
    assert_eq!(expecting.to_string(), "h:1 tier=1 expect=text:I%20am%20a%23%25");
    let plain = only("h:1");
    assert_eq!((plain.weight(), plain.tier(), plain.zone()), (1, 0, None));
}

#[test]
fn comments_blank_lines_carriage_returns_and_a_byte_order_mark_are_valid() {
    let list = parse(b"\xEF\xBB\xBFa:1\r\n\r\n# note \xFF\r\n   \t\r\n  b:2#x\r\n");
    let lines: Vec<_> = list.backends.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["a:1", "b:2"]);
    assert!(list.problems.is_empty());
}

#[test]
fn an_invalid_line_is_reported_and_the_other_lines_are_used() {
    let list = parse(b"a:1\n\nnonsense\nb:2\n");
    assert_eq!(list.backends.len(), 2);
    assert_eq!(list.problems.len(), 1);
    assert_eq!(list.problems[0].to_string(), "line 3: nonsense: no port; write host:port");
}

#[test]
fn every_kind_of_invalid_line_has_its_reason() {
    for (line, reason) in [
        ("h:1 scan=ftp://h/", "scan= is the address"),
        ("h:1 scan=rsync://h/", "scan= is the address"),
        ("h:1 scan=rsync://h/a*b", "scan= is the address"),
        ("h:1 scan=rsync://h/a%20b", "scan= is the address"),
        ("h:1 scan=rsync://u@h/a", "scan= is the address"),
        ("h:1 scan=http://u:p@h/a", "scan= is the address"),
        ("h:1 scan=http://h/a?b", "scan= is the address"),
        ("h:1 scan=--help", "scan= is the address"),
        ("host", "no port"),
        ("http:/host:80", "port must be"),
        ("ftp://host:21", "http:// or https://"),
        ("host:", "port must be"),
        ("host:0", "port must be"),
        ("host:+1", "port must be"),
        ("host:65536", "port must be"),
        (":8081", "host must be"),
        ("::1:8081", "brackets"),
        ("[::1:8081", "host must be"),
        ("[::1]8081", "host must be"),
        ("[fe80::1%eth0]:8081", "host must be"),
        ("user@host:80", "host must be"),
        ("ho\u{fc}st:80", "host must be"),
        ("host\u{0}:80", "host must be"),
        ("-a.example:80", "host must be"),
        ("a..example:80", "host must be"),
        ("a.example.:80", "host must be"),
        ("127.1:80", "host must be"),
        ("0x7f.0x1:80", "host must be"),
        ("256.0.0.1:80", "host must be"),
        ("0.0.0.0:80", "clients cannot"),
        ("[::]:80", "clients cannot"),
        ("http://h/a/../b", "base path"),
        ("0.xn--a:1", "the host must be"),
        ("http://h/%2E%2e/b", "base path"),
        ("http://h//b", "base path"),
        ("http://h/b?c", "base path"),
        ("http://h/b\\c", "base path"),
        ("http://h/%zz", "base path"),
        ("h:1 fast", "only attributes such as"),
        ("h:1 wieght=2", "the attributes are weight, tier, zone"),
        ("h:1 weight=0", "remove its line"),
        ("h:1 weight=1001", "from 1 to 1000"),
        ("h:1 weight=-1", "from 1 to 1000"),
        ("h:1 weight=", "from 1 to 1000"),
        ("h:1 tier=256", "from 0 to 255"),
        ("h:1 zone=", "a zone is"),
        ("h:1 zone=a/b", "a zone is"),
        ("h:1 expect=", "an expectation is"),
        ("h:1 expect=text:", "an expectation is"),
        ("h:1 expect=text:%FF", "an expectation is"),
        ("h:1 expect=sha-256:00", "an expectation is"),
        ("h:1 expect=text:a expect=text:b", "twice"),
        ("h:1 proof=", "a proof is the path"),
        ("h:1 proof=/", "a proof is the path"),
        ("h:1 proof=a/../b", "a proof is the path"),
        ("h:1 proof=/a?b", "a proof is the path"),
        ("h:1 origin origin", "twice"),
        ("h:1 origin=1", "unknown attribute"),
        ("h:1 tier=1 tier=1", "twice"),
        ("h:1 country=UK", "country=UK: a country is two letters"),
        ("h:1 continent=XX", "a continent is one of"),
        ("h:1 asn=x", "an AS is a whole number"),
        ("h:1 lat=1", "lat= and lon= need each other"),
        ("h:1 lat=x lon=1", "a latitude is"),
        ("h:1 only=", "a list of clients has"),
        ("h:1 not=DE,10.0.0.0/40", "a list of clients has"),
        ("h:1 not=continent:DE", "a continent is one of"),
        ("h:1 https_only=1", "unknown attribute"),
        ("h:1 family=5", "it must be 4 or 6"),
        ("h:1 hours=6", "two hours of the day"),
        ("h:1 hours=6-6", "two hours of the day"),
        ("h:1 hours=25-3", "two hours of the day"),
        ("h:1 max_redirects=0", "at least 1"),
        ("h:1 monthly_bytes=many", "it must be a size"),
        ("h:1 min_file_size=2 max_file_size=1", "must be at most max_file_size="),
    ] {
        let message = problem(line);
        assert!(message.contains(reason), "{line:?} gave: {message}");
    }
}

#[test]
fn a_duplicate_is_ignored_and_reported() {
    let list = parse(b"h:80 weight=2\nhttp://H/\n");
    assert_eq!(list.backends.len(), 1);
    assert_eq!(list.backends[0].weight(), 2);
    assert_eq!(list.problems[0].to_string(), "line 2: http://h:80 is already in line 1, which is used");
    assert!(!list.is_garbage());
}

#[test]
fn invalid_utf8_affects_only_its_line() {
    let list = parse(b"a:1\n\xC3\x28:1\nb:2");
    assert_eq!(list.backends.len(), 2);
    assert_eq!(list.problems, [ListProblem { line: 2, reason: LineError::NotUtf8 }]);
    assert_eq!(parse(b"\xFF\xFEa\0:\x001\0").problems[0].reason, LineError::Utf16);
}

#[test]
fn a_huge_line_is_ignored_and_its_message_is_short() {
    let list = parse(format!("{}:1\na:1", "a".repeat(1 << 20)).as_bytes());
    assert_eq!(list.backends.len(), 1);
    assert_eq!(list.problems[0].reason, LineError::TooLong { bytes: (1 << 20) + 2 });
    assert!(problem(&"\u{1b}".repeat(900)).len() < 600);
    // A long comment does not count towards the limit.
    assert_eq!(parse(format!("a:1 #{}", "x".repeat(2000)).as_bytes()).backends.len(), 1);
}

#[test]
fn garbage_is_distinguished_from_an_empty_list() {
    assert!(!parse(b"").is_garbage());
    assert!(!parse(b"# nothing here\n\n").is_garbage());
    assert!(parse(b"<html>\n").is_garbage());
    let garbage = parse("x\n".repeat(1000).as_bytes());
    assert_eq!((garbage.problems.len(), garbage.unlisted_problems), (MAX_PROBLEMS, 1000 - MAX_PROBLEMS));
}

#[test]
fn backends_beyond_the_limit_are_ignored_and_counted() {
    let lines: Vec<_> = (0..MAX_BACKENDS + 3).map(|number| format!("h{number}.example:1")).collect();
    let list = parse(lines.join("\n").as_bytes());
    assert_eq!(list.backends.len(), MAX_BACKENDS);
    assert_eq!(
        list.problems,
        [ListProblem { line: MAX_BACKENDS + 1, reason: LineError::TooMany { more: 2 } }]
    );
}
