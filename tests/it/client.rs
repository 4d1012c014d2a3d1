//! `fingerpost get` in its basic use: redirects are shown and followed, files are whole or absent, exit codes
//! are right.

use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, FileServer, Script, Times, content};

fn balancer_before(server: &FileServer, path: &str) -> FileServer {
    Script::redirect(&server.url(path), &["cache-CONTROL: no-store"]).start()
}

#[test]
fn the_redirect_is_shown_as_received_and_followed() {
    let file = content(200_000);
    let server = Script::of(&file).start();
    let balancer = balancer_before(&server, "/a/plshelp.txt");
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&balancer.url("/a/plshelp.txt")]);
    let stdout = outcome.ended_with(0).stdout();
    let location = server.url("/a/plshelp.txt");
    let shown = format!(
        "HTTP/1.1 301 Scripted\r\nLocation: {location}\r\ncache-CONTROL: no-store\r\nContent-Length: 35\r\n\r\n\
         <html><body>301 page</body></html>\nA new server address was received: {location}\n"
    );
    assert!(stdout.starts_with(&shown), "{stdout}");
    assert_eq!(downloads.names(), ["plshelp.txt"]);
    assert_eq!(downloads.read("plshelp.txt"), file);
}

#[test]
fn standard_output_has_only_the_file() {
    let file = content(100_000);
    let server = Script::of(&file).start();
    let balancer = balancer_before(&server, "/f");
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&balancer.url("/f"), "-o", "-"]);
    assert!(outcome.ended_with(0).stdout_bytes() == file, "other bytes on standard output");
    assert!(outcome.stderr().contains("HTTP/1.1 301 Scripted"), "{}", outcome.stderr());
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn a_partial_file_does_not_get_its_name() {
    let server = Script::of(&content(100_000)).etag(None).closes_at(50_000).start();
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&server.url("/f"), "-o", "name"]);
    assert!(outcome.ended_with(18).stderr().contains("50000 bytes are missing"), "{}", outcome.stderr());
    assert!(!downloads.names().contains(&"name".to_owned()), "{:?}", downloads.names());
}

#[test]
fn an_error_page_is_shown_and_not_saved() {
    for status in [400, 416, 500, 501, 503] {
        let server = Script::of(b"").answers(status, vec!["Retry-After: 7".to_owned()]).start();
        let downloads = Downloads::new();
        let outcome = downloads.get(&[&server.url("/f")]);
        let stdout = outcome.ended_with(22).stdout();
        assert!(stdout.contains(&format!("HTTP/1.1 {status} Scripted\r\nRetry-After: 7\r\n")), "{stdout}");
        assert!(stdout.contains(&format!("{status} page")), "{stdout}");
        assert_eq!(downloads.names(), [""; 0]);
    }
}

#[test]
fn a_missing_file_is_reported_in_one_line_without_the_page_of_the_server() {
    for status in [404, 410] {
        let server = Script::of(b"").answers(status, vec![]).start();
        let balancer = balancer_before(&server, "/f");
        for first in [&server, &balancer] {
            let outcome = Downloads::new().get(&[&first.url("/f")]);
            let stdout = outcome.ended_with(22).stdout();
            assert!(!stdout.contains(&format!("{status} page")), "{stdout}");
            let line = format!(
                "Error: the only server does not have {}: it answered 404 or 410\n",
                server.url("/f")
            );
            assert_eq!(outcome.stderr(), line);
        }
    }
}

#[test]
fn an_address_without_scheme_or_file_is_refused() {
    for bad in ["127.0.0.1:80/file", "http://127.0.0.1", "http://127.0.0.1:80/", "nonsense"] {
        let outcome = Downloads::new().get(&[bad]);
        let stderr = outcome.ended_with(3).stderr();
        assert!(stderr.contains(&format!("Error: invalid URL {bad:?}: ")), "{stderr}");
    }
}

#[test]
fn an_unannounced_close_after_each_answer_is_not_a_failure() {
    let body = "I am a file.\n";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let server = Script::of(b"").sends(answer).start();
    let balancer = balancer_before(&server, "/f");
    let downloads = Downloads::new();
    downloads.get(&[&balancer.url("/f")]).ended_with(0);
    assert_eq!(downloads.read("f"), body.as_bytes());
}

#[test]
fn redirect_loops_and_long_chains_are_refused() {
    let downloads = Downloads::new();
    let first = Script::of(b"").start();
    first.becomes(Script::redirect(&first.url("/f"), &[]));
    downloads.get(&[&first.url("/f")]).ended_with(47);
    let second = Script::redirect(&first.url("/f"), &[]).start();
    first.becomes(Script::redirect(&second.url("/f"), &[]));
    downloads.get(&[&first.url("/f")]).ended_with(47);

    let file = Script::of(b"I am a file.").start();
    let mut chain = vec![file];
    for _ in 0..11 {
        let next = Script::redirect(&chain.last().unwrap().url("/f"), &[]).start();
        chain.push(next);
    }
    downloads.get(&[&chain[11].url("/f"), "-o", "eleven"]).ended_with(47);
    downloads.get(&[&chain[10].url("/f"), "-o", "ten"]).ended_with(0);
    assert_eq!(downloads.names(), ["ten"]);
}

#[test]
fn redirects_to_other_schemes_are_refused() {
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/f", "gopher://127.0.0.1/f", "data:text/plain,x"] {
        let server = Script::redirect(location, &[]).start();
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f")]).ended_with(1);
        assert_eq!(downloads.names(), [""; 0]);
    }
    for location in ["http://", "http://[", ""] {
        let server = Script::redirect(location, &[]).start();
        let code = Downloads::new().get(&[&server.url("/f")]).code();
        assert!([22, 47].contains(&code), "{location:?}: {code}");
    }
}

#[test]
fn an_answer_that_is_not_http_is_an_error() {
    let cases: [(Fault, i32); 4] = [
        (Fault::ClosesWithoutAnswer, 52),
        (Fault::Sends(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), 56),
        (Fault::Sends(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), 56),
        (Fault::SendsForever(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(100)), 56),
    ];
    for (fault, code) in cases {
        let server = Script::of(b"").fault(fault, Times::Always).start();
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f")]).ended_with(code);
        assert_eq!(downloads.names(), [""; 0]);
    }
}
