//! `fingerpost get` and unusual forms of HTTP exchanges: it accepts the forms that curl accepts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::client_tls;
use super::support::downloads::Downloads;

const CONTENT: &[u8] = b"I am a file.\n";

/// A server whose handler receives the head of each request and writes the answer.
pub(super) struct Raw {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    pub(super) fn start(
        handler: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen) = (Arc::new(handler), Arc::clone(&requests));
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                thread::spawn(move || {
                    while let Some(head) = read_head(&mut stream) {
                        seen.lock().unwrap().push(head.clone());
                        if handler(&head, &mut stream).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn answer(lines: &str) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n", CONTENT.len()).as_bytes(), CONTENT]
        .concat()
}

#[test]
fn answers_that_curl_accepts_are_downloaded() {
    let hint = "HTTP/1.1 102 Processing\r\n\r\n".repeat(12);
    let cases: [(&str, Vec<u8>); 5] = [
        ("/folded", answer("Content-Security-Policy: default-src 'self';\r\n    img-src 'self'\r\nX: y\r\n")),
        ("/space", answer("X : y\r\n")),
        ("/identity", answer("Transfer-Encoding: identity\r\n")),
        ("/interim", [hint.as_bytes(), &answer("")].concat()),
        (
            "/203",
            [b"HTTP/1.1 203 Non-Authoritative Information\r\nContent-Length: 13\r\n\r\n", CONTENT].concat(),
        ),
    ];
    let (paths, answers) = (cases.clone().map(|(path, _)| path), cases);
    let server = Raw::start(move |head, stream| {
        let (_, bytes) = answers.iter().find(|(own, _)| *own == path(head)).unwrap();
        stream.write_all(bytes)
    });
    for path in paths {
        let downloads = Downloads::new();
        downloads.get(&[&server.url(path)]).ended_with(0);
        assert_eq!(downloads.read(&path[1..]), CONTENT, "{path}");
    }
    assert_eq!(server.requests().len(), 5, "each at the first attempt");
}

#[test]
fn a_slow_page_of_a_redirect_does_not_delay_the_download() {
    let server = Raw::start(|head, stream| match path(head) {
        "/without-length" => {
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /f\r\n\r\n")?;
            thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        "/endless" => {
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /f\r\nContent-Length: 100000000\r\n\r\n")?;
            loop {
                stream.write_all(b"x")?;
                thread::sleep(Duration::from_millis(100));
            }
        }
        _ => stream.write_all(&answer("")),
    });
    for path in ["/without-length", "/endless"] {
        let (downloads, began) = (Downloads::new(), Instant::now());
        downloads.get(&[&server.url(path), "-o", "f"]).ended_with(0);
        assert_eq!(downloads.read("f"), CONTENT);
        assert!(began.elapsed() < Duration::from_secs(10), "{path}: {:?}", began.elapsed());
    }
}

#[test]
fn a_location_in_latin_1_is_percent_encoded_byte_by_byte() {
    let server = Raw::start(|head, stream| match path(head) {
        "/go" => {
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /caf\xe9.bin\r\nContent-Length: 0\r\n\r\n")
        }
        _ => stream.write_all(&answer("")),
    });
    let downloads = Downloads::new();
    downloads.get(&[&server.url("/go"), "-o", "f"]).ended_with(0);
    let asked: Vec<String> = server.requests().iter().map(|head| path(head).to_owned()).collect();
    assert_eq!(asked, ["/go", "/caf%E9.bin"]);
}

#[test]
fn a_body_in_an_answer_to_head_does_not_affect_the_download() {
    for delay in [0, 20] {
        let server = Raw::start(move |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nETag: \"v\"\r\nContent-Length: 13\r\n\r\n")?;
            thread::sleep(Duration::from_millis(delay));
            stream.write_all(CONTENT)
        });
        let downloads = Downloads::new();
        std::fs::write(downloads.path().join("f"), "old").unwrap();
        downloads.get(&[&server.url("/f")]).ended_with(0);
        assert_eq!(downloads.read("f"), CONTENT);
    }
}

#[test]
fn secrets_are_sent_to_no_other_port() {
    let other = Raw::start(|_, stream| stream.write_all(&answer("")));
    let location = other.url("/f");
    let server = Raw::start(move |_, stream| {
        stream.write_all(
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        )
    });
    let url = server.url("/f");
    let with_user = url.replace("//", "//user:secret@");
    for arguments in [&["-H", "Authorization: Bearer abc", "-H", "Cookie: a=b", &url][..], &[&with_user]] {
        Downloads::new().get(arguments).ended_with(0);
    }
    assert!(server.requests().iter().all(|head| head.contains("Authorization: ")), "{:?}", server.requests());
    let others = other.requests();
    assert!(
        !others.iter().any(|head| head.contains("Authorization") || head.contains("Cookie")),
        "{others:?}"
    );
    assert_eq!(others.len(), 2);
}

#[test]
fn a_certificate_made_by_openssl_is_trusted_if_it_is_listed() {
    let made = tempfile::tempdir().unwrap();
    let name = "subjectAltName=IP:127.0.0.1";
    let authority = "basicConstraints=critical,CA:TRUE";
    let Some((certificate, key)) = client_tls::self_signed(made.path(), &[name, authority]) else { return };
    let address = client_tls::server_with(&certificate, &key, answer("Connection: close\r\n"));
    let (downloads, certificate) = (Downloads::new(), certificate.display().to_string());
    downloads.get(&[&format!("https://{address}/f"), "--cacert", &certificate]).ended_with(0);
    assert_eq!(downloads.read("f"), CONTENT);
    // It is not trusted for another name, nor without the list.
    downloads
        .get(&[&format!("https://localhost:{}/g", address.port()), "-4", "--cacert", &certificate])
        .ended_with(60);
    downloads.get(&[&format!("https://{address}/g")]).ended_with(60);
    assert_eq!(downloads.names(), ["f"]);
}

#[test]
fn no_proxy_has_the_syntax_of_curl() {
    let proxy =
        Raw::start(|_, stream| stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"));
    let server = Raw::start(|_, stream| stream.write_all(&answer("")));
    let by_name = server.url("/f").replace("127.0.0.1", "localhost");
    for (rule, url, code) in [
        ("127.0.0.0/8", server.url("/f"), 0),
        ("localhost.", by_name.clone(), 0),
        (".localhost", by_name, 0),
        ("10.0.0.0/8", server.url("/f"), 22),
    ] {
        let downloads = Downloads::new();
        let mut command = downloads.command(&[&url, "-4"]);
        command.env("http_proxy", proxy.url("")).env("NO_PROXY", rule).env_remove("no_proxy");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{rule}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn few_descriptors_mean_fewer_downloads_at_a_time() {
    let server = Raw::start(|head, stream| {
        thread::sleep(Duration::from_millis(2));
        let body = path(head);
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    });
    let downloads = Downloads::new();
    let list: Vec<_> = (0..100).map(|number| server.url(&format!("/f{number}"))).collect();
    std::fs::write(downloads.path().join("list"), list.join("\n")).unwrap();
    // The hard limit is set too, so that the limit cannot be raised.
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n 64; exec {} get -j 64 -i list", env!("CARGO_BIN_EXE_fingerpost")))
        .current_dir(downloads.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(downloads.names().len(), 101);
    assert!(
        (0..100).all(|number| downloads.read(&format!("f{number}")) == format!("/f{number}").into_bytes())
    );
}
