//! `fingerpost get` and names: of files, in lists, in Metalinks; addresses without a file name; credentials in addresses.

use sha2::Sha256;

use super::support::digits;
use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, Script, Times, content};
use super::support::wait_until;

#[test]
fn names_that_are_invalid_only_on_other_systems_are_kept() {
    let server = Script::of(b"I am a file.").start();
    let downloads = Downloads::new();
    let paths = ["aux.c", "a*b", "what%3F", "pkg_1%3a2.deb", "pkg_1_2.deb", "%E4", "%F6"];
    let urls: Vec<String> = paths.iter().map(|path| server.url(&format!("/{path}"))).collect();
    downloads.get(&urls.iter().map(String::as_str).collect::<Vec<_>>()).ended_with(0);
    assert_eq!(downloads.names(), ["%E4", "%F6", "a*b", "aux.c", "pkg_1:2.deb", "pkg_1_2.deb", "what?"]);
}

#[test]
fn lists_in_formats_of_other_programs_are_read() {
    let server = Script::of(b"I am a file.").start();
    let url = |name: &str| server.url(&format!("/{name}"));
    let utf16: Vec<u8> =
        "\u{feff}".encode_utf16().chain(url("wide").encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let lists: [(&[&str], Vec<u8>); 4] = [
        (&["a", "b"], format!("\u{feff}{}\r\n{}", url("a"), url("b")).into_bytes()),
        (&["latin"], [b"# f\xFCr dich\n\t".as_slice(), url("latin").as_bytes(), b"\t\n\n"].concat()),
        (&["%FC"], [url("").as_bytes(), b"\xFC\r\n"].concat()),
        (&["wide"], utf16),
    ];
    for (names, list) in lists {
        let downloads = Downloads::new();
        std::fs::write(downloads.path().join("list"), list).unwrap();
        downloads.get(&["-i", "list"]).ended_with(0);
        for name in names {
            assert_eq!(downloads.read(name), b"I am a file.");
        }
    }
}

#[test]
fn a_metalink_creates_folders_only_inside_the_given_one() {
    let server = Script::of(b"I am a file.").start();
    let digest = digits::<Sha256>(b"I am a file.");
    let file = |name: &str| {
        let hash = format!("<size>12</size><hash type=\"sha-256\">{digest}</hash>");
        format!("<file name=\"{name}\">{hash}<url>{}</url></file>", server.url("/f"))
    };
    let files = [file("doc/a/README"), file("doc/b/README"), file("../../outside"), file("/etc/x")].concat();
    let downloads = Downloads::new();
    let text = format!("<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">{files}</metalink>");
    std::fs::write(downloads.path().join("x.meta4"), text).unwrap();
    std::fs::create_dir(downloads.path().join("out")).unwrap();
    downloads.get(&["x.meta4", "--output-dir", "out"]).ended_with(0);
    for name in ["doc/a/README", "doc/b/README", "outside", "etc/x"] {
        assert_eq!(downloads.read(&format!("out/{name}")), b"I am a file.", "{name}");
    }
    assert_eq!(downloads.names(), ["out", "x.meta4"]);
    // The user's folder is not created.
    downloads.get(&["x.meta4", "--output-dir", "missing"]).ended_with(23);
    assert_eq!(downloads.names(), ["out", "x.meta4"]);
}

#[test]
fn an_address_without_file_name_needs_another_source_of_the_name() {
    let named = "Content-Disposition: attachment; filename=\"named\"";
    let server = Script::of(b"I am a file.").header(named).start();
    let root = server.url("");
    for address in [server.url("/?id=1"), server.url("/dl/?file=a"), server.url("/dl/"), root.clone()] {
        let downloads = Downloads::new();
        downloads.get(&[&address, "-o", "f"]).ended_with(0);
        downloads.get(&[&address, "-J"]).ended_with(0);
        assert_eq!(downloads.names(), ["f", "named"]);
        assert!(downloads.get(&[&address, "-o", "-"]).ended_with(0).stdout_bytes() == b"I am a file.");
        let outcome = downloads.get(&[&address]);
        let words = format!("invalid URL {address:?}: it names no file: choose a name with -o");
        assert!(outcome.ended_with(3).stderr().contains(&words), "{}", outcome.stderr());
    }
}

#[test]
fn an_invalid_address_is_quoted() {
    let downloads = Downloads::new();
    for (address, code, words) in [
        ("127.0.0.1:80/f", 3, "invalid URL \"127.0.0.1:80/f\": expected http://host:port/file"),
        ("http://user:SECRET@:80/f", 3, "invalid URL \"http://:80/f\""),
        ("ftp://user:SECRET@host/f", 1, "ftp://host/f: unsupported scheme \"ftp\""),
    ] {
        let outcome = downloads.get(&[address]);
        let stderr = outcome.ended_with(code).stderr();
        assert!(stderr.contains(words) && !stderr.contains("SECRET"), "{stderr}");
    }
}

#[test]
fn credentials_of_an_address_are_sent_and_not_shown() {
    let file = content(3_000_000);
    let server = Script::of(&file).bytes_per_second(1_000_000).start();
    // Another port is another origin.
    let balancer = Script::redirect(&server.url("/f"), &[]).start();
    for (first, mode) in [(&server, "--json"), (&balancer, "-v")] {
        let downloads = Downloads::new();
        let address = first.url("/f").replace("//", "//user:SECRET@");
        let mut running = downloads.start(&[&address, mode, "--checkpoint-interval", "0.05"]);
        wait_until("a journal", || downloads.names().contains(&"f.part.journal".to_owned()));
        running.signal(rustix::process::Signal::INT);
        assert_eq!(running.wait().code(), Some(130));
        let shown = running.stdout()
            + &running.stderr()
            + &String::from_utf8_lossy(&downloads.read("f.part.journal"));
        assert!(!shown.contains("SECRET"), "{shown}");
        let asked = first.exchanges();
        assert_eq!(asked[0].header("Authorization"), Some("Basic dXNlcjpTRUNSRVQ="), "{asked:?}");
    }
    let of_balancer = &server.exchanges()[1..];
    assert!(of_balancer.iter().all(|exchange| exchange.header("Authorization").is_none()), "{of_balancer:?}");
    let missing = Script::of(b"").fault(Fault::Answers(404, vec![]), Times::Always).start();
    let outcome = Downloads::new().get(&[&missing.url("/f").replace("//", "//user:SECRET@"), "--json", "-v"]);
    let shown = outcome.ended_with(22).stdout() + &outcome.stderr();
    assert!(!shown.contains("SECRET"), "{shown}");
}

#[test]
fn flags_of_curl_without_effect_are_accepted() {
    let server = Script::of(b"I am a file.").start();
    let downloads = Downloads::new();
    let outcome = downloads.get(&["-fsSLO", "-q", &server.url("/f")]);
    outcome.ended_with(0);
    assert_eq!(outcome.stdout() + &outcome.stderr(), "");
    assert_eq!(downloads.names(), ["f"]);
}
