//! HTTPS of balancer and server: certificates, sessions, hostile clients, and the same answers as over plain HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::support::downloads::Downloads;
use super::support::fleet::Balancer;
use super::support::misbehaving::Script;
use super::support::program::{Program, fingerpost};
use super::support::{DEADLINE, http, wait_until};

const READY: &str = "Will wait for TLS client connections at port ";

/// An authority and the certificates that it signed, in a folder that also has files to serve.
pub(super) struct Authority(TempDir);

impl Authority {
    pub(super) fn new() -> Self {
        let own = Self(tempfile::tempdir().unwrap());
        own.openssl(&format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        std::fs::create_dir(own.path("files")).unwrap();
        std::fs::write(own.path("files/small"), "small file").unwrap();
        std::fs::write(own.path("files/large"), content()).unwrap();
        own
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes `name.pem` and `name.key` for these alternative names.
    pub(super) fn sign(&self, name: &str, names: &str) {
        self.openssl(&format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        std::fs::write(self.path("extensions"), format!("subjectAltName={names}")).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem -extfile extensions"
        ));
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).unwrap()
    }

    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.unwrap().with_root_certificates(roots).with_no_client_auth()
    }

    /// A file server with these keys of `[server]`.
    fn server(&self, certificates: &[&str], keys: &[(&str, &str)]) -> Server {
        let mut command = fingerpost();
        command.args(["server", "--host", "127.0.0.1", "--workers", "1", "--admin", "127.0.0.1:0", "--root"]);
        command.arg(self.path("files")).args(self.flags(certificates));
        command.envs(keys.iter().map(|(key, value)| (format!("FINGERPOST__SERVER__{key}"), value)));
        let program = Program::spawn(&mut command);
        let port = program.stdout_after(READY).parse().unwrap();
        program.port();
        Server { program, port }
    }

    fn flags(&self, certificates: &[&str]) -> Vec<String> {
        let pair = |name| {
            [
                "--tls-cert".into(),
                self.text(&format!("{name}.pem")),
                "--tls-key".into(),
                self.text(&format!("{name}.key")),
            ]
        };
        certificates.iter().flat_map(pair).collect()
    }

    /// The output of curl, which trusts this authority.
    fn curl(&self, arguments: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--cacert"])
            .arg(self.path("ca.pem"))
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| (at % 251) as u8).collect()
}

struct Server {
    program: Program,
    port: u16,
}

impl Server {
    /// The certificate that a client gets that asks for this name, and the kind of its handshake.
    fn handshake(&self, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Session> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port))?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, tcp);
        // The answer follows the ticket of the session.
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        assert!(answer.ends_with(b"small file"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(stream.conn.alpn_protocol(), None);
        let certificate = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
        Ok(Session { certificate, kind: stream.conn.handshake_kind().unwrap() })
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    fn metric(&self, name: &str) -> u64 {
        let text = http::get(self.program.admin_address(), "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("fingerpost_server_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

struct Session {
    certificate: CertificateDer<'static>,
    kind: HandshakeKind,
}

#[test]
fn a_client_that_uses_https_is_redirected_to_an_https_backend() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let (plain, secure) = (authority.server(&["own"], &[]), authority.server(&["own"], &[]));
    let list = format!("127.0.0.1:{}\nhttps://localhost:{}\n", plain.program.port(), secure.port);
    let ca = authority.text("ca.pem");
    let mut flags = vec!["--probe-interval", "200ms", "--backend-ca", &ca];
    let own = authority.flags(&["own"]);
    flags.extend(own.iter().map(String::as_str));
    let balancer = Balancer::start_with(&list, &flags);
    let port: u16 = balancer.program().stdout_after(READY).parse().unwrap();
    wait_until("both backends to be up", || balancer.backends().iter().all(|own| own["state"] == "up"));
    let url = format!("https://localhost:{port}/small");
    for extra in [&["--get"][..], &["-H", "Range: bytes=0-99"], &["--tls-max", "1.2"]] {
        let format = " %{url_effective} %{num_redirects} %{response_code} %{http_version}";
        let output = authority.curl(&[&["-L", "-w", format, &url], extra].concat());
        assert!(output.starts_with(&format!("small file {} 1 20", secure.url("/small"))), "{output}");
        assert!(output.ends_with("1.1"), "{output}");
    }
    // A redirect over plain HTTP may lead to either.
    assert!(
        authority
            .curl(&["-L", &format!("http://localhost:{}/small", balancer.address().port())])
            .starts_with("small file")
    );
}

#[test]
fn a_certificate_is_replaced_without_a_failed_handshake_and_an_invalid_one_is_refused() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    authority.sign("new", "DNS:localhost");
    let server = authority.server(&["own"], &[]);
    let mut config = authority.client();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let (old, new) = (authority.certificate("own.pem"), authority.certificate("new.pem"));
    let (is_over, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let session = server.handshake(&config, "localhost").unwrap();
                assert!(session.certificate == old || session.certificate == new);
                handshakes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let has_latest = |certificate: &CertificateDer<'_>| {
            load.is_finished() || server.handshake(&config, "localhost").unwrap().certificate == *certificate
        };
        assert!(has_latest(&old));
        // Between the two copies, the key is that of another certificate.
        std::fs::copy(authority.path("new.pem"), authority.path("own.pem")).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        std::fs::copy(authority.path("new.key"), authority.path("own.key")).unwrap();
        wait_until("the new certificate", || has_latest(&new));

        for damage in ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let refused = server.metric("certificate_reloads_refused_total");
            std::fs::write(authority.path("own.key"), damage).unwrap();
            wait_until("the refusal", || server.metric("certificate_reloads_refused_total") > refused);
            assert!(has_latest(&new));
        }
        server.program.wait_for_stderr("the last good certificate stays in use");
        std::fs::copy(authority.path("new.key"), authority.path("own.key")).unwrap();

        // SIGHUP reads complete files at once.
        authority.sign("own", "DNS:localhost");
        let latest = authority.certificate("own.pem");
        server.program.signal(Signal::HUP);
        is_over.store(true, Ordering::Relaxed);
        load.join().unwrap();
        wait_until("the latest certificate", || {
            server.handshake(&config, "localhost").unwrap().certificate == latest
        });
    });
    assert!(handshakes.load(Ordering::Relaxed) > 10);
    assert_eq!(server.metric("tls_handshakes_failed_total"), 0);
}

#[test]
fn a_reload_applies_other_certificates_unless_one_is_unusable() {
    let authority = Authority::new();
    for name in ["own", "other"] {
        authority.sign(name, "DNS:localhost");
    }
    let configure = |certificate: &str| {
        let (certificate, key) = (authority.text(&format!("{certificate}.pem")), authority.text("other.key"));
        let text = format!("[server]\ntls_cert = '{certificate}'\ntls_key = '{key}'\nlimit_rate = '1MiB'\n");
        std::fs::write(authority.path("own.toml"), text).unwrap();
    };
    std::fs::copy(authority.path("own.key"), authority.path("first.key")).unwrap();
    let text = format!(
        "[server]\ntls_cert = '{}'\ntls_key = '{}'\n",
        authority.text("own.pem"),
        authority.text("first.key")
    );
    std::fs::write(authority.path("own.toml"), text).unwrap();
    let mut command = fingerpost();
    command.args(["server", "--host", "127.0.0.1", "--workers", "1", "--root"]).arg(authority.path("files"));
    let program = Program::spawn(command.arg("--config").arg(authority.path("own.toml")));
    let port = program.stdout_after(READY).parse().unwrap();
    program.port();
    let server = Server { program, port };
    let mut config = authority.client();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let certificate = || server.handshake(&config, "localhost").unwrap().certificate;
    assert!(certificate() == authority.certificate("own.pem"));
    // The key belongs to the other certificate.
    configure("own");
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("does not belong to the certificate");
    assert!(certificate() == authority.certificate("own.pem"));
    configure("other");
    server.program.signal(Signal::HUP);
    wait_until("the other certificate", || certificate() == authority.certificate("other.pem"));
}

#[test]
fn the_requested_name_selects_the_certificate() {
    let authority = Authority::new();
    authority.sign("first", "DNS:localhost,DNS:one.wild.example");
    authority.sign("second", "DNS:b.example,DNS:*.wild.example");
    let server = authority.server(&["first", "second"], &[]);
    let config = Arc::new(authority.client());
    for (name, file) in [
        ("localhost", "first.pem"),
        ("B.example", "second.pem"),
        ("one.wild.example", "first.pem"),
        ("two.wild.example", "second.pem"),
    ] {
        let session = server.handshake(&config, name).unwrap();
        assert!(session.certificate == authority.certificate(file), "{name}");
    }
    // The first is the default, which is not for these names.
    for name in ["other.example", "a.two.wild.example"] {
        server.handshake(&config, name).err().unwrap();
    }
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let server = authority.server(&["own"], &[]);
    let mut version_12 =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(RootCertStore { roots: vec![] })
            .with_no_client_auth();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate("ca.pem")).unwrap();
    version_12.dangerous().set_certificate_verifier(
        rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(rustls::crypto::ring::default_provider()),
        )
        .build()
        .unwrap(),
    );
    for config in [authority.client(), version_12] {
        let config = Arc::new(config);
        let kinds = [(); 3].map(|()| server.handshake(&config, "localhost").unwrap().kind);
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
    }
    assert_eq!(server.metric("tls_handshakes_resumed_total"), 4);
}

#[test]
fn half_and_invalid_handshakes_end_at_the_deadline_and_delay_no_other_client() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let server = authority.server(&["own"], &[("HEAD_TIMEOUT", "300ms")]);
    let connect = |bytes: &[u8]| {
        let mut tcp = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        tcp.write_all(bytes).unwrap();
        tcp
    };
    let started: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let mut slow: Vec<_> = (0..50).map(|_| connect(started)).collect();
    let silent: Vec<_> = (0..50).map(|_| connect(b"")).collect();
    let config = Arc::new(authority.client());
    server.handshake(&config, "localhost").unwrap();
    // An invalid record gets an alert.
    let mut alert = Vec::new();
    connect(&[22, 3, 1, 0, 4, 2, 0, 0, 0]).read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    for tcp in &mut slow {
        tcp.read_to_end(&mut Vec::new()).unwrap();
    }
    for mut tcp in silent {
        tcp.read_to_end(&mut Vec::new()).unwrap();
    }
    wait_until("the failed handshakes", || server.metric("tls_handshakes_failed_total") == 51);
    server.handshake(&config, "localhost").unwrap();
}

#[test]
fn a_reader_that_takes_nothing_is_cut() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    std::fs::write(authority.path("files/huge"), vec![7; 64 << 20]).unwrap();
    let server = authority.server(&["own"], &[("WRITE_TIMEOUT", "500ms")]);
    let tcp = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(authority.client()), name).unwrap();
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    wait_until("the end of the reader", || server.metric("stalled_readers_total") == 1);
    assert_eq!(server.metric("aborted_total"), 1);
}

#[test]
fn files_have_the_same_bytes_as_over_plain_http() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    // A certificate and its key may be in one file.
    let both =
        [authority.path("own.pem"), authority.path("own.key")].map(|path| std::fs::read(path).unwrap());
    std::fs::write(authority.path("both.pem"), both.concat()).unwrap();
    let server = authority.server(&[], &[("TLS_CERT", &authority.text("both.pem"))]);
    let plain = format!("http://localhost:{}", server.program.port());
    let secure = server.url("");
    let ranges = ["bytes=0-", "bytes=5-1000000", "bytes=0-9,100000-2900000,2999999-"];
    for (number, range) in ranges.iter().enumerate() {
        for (scheme, base) in [("plain", &plain), ("secure", &secure)] {
            let out = authority.text(&format!("{scheme}-{number}"));
            authority.curl(&["-H", &format!("Range: {range}"), "-o", &out, &format!("{base}/large")]);
        }
        let body = |scheme| {
            // The boundary of the parts is a random one.
            let body = std::fs::read(authority.path(&format!("{scheme}-{number}"))).unwrap();
            body.split(|byte| *byte == b'\n')
                .filter(|line| !line.starts_with(b"--"))
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        assert!(body("plain") == body("secure"), "{range}");
    }
    // HEAD and several files on one connection.
    let format = "%{response_code} %{num_connects}\n";
    let (small, large) = (format!("{secure}/small"), format!("{secure}/large"));
    let head = authority.curl(&["-I", "-w", format, &large, &large]);
    assert!(head.contains("Content-Length: 3000000") && head.ends_with("200 0\n"), "{head}");
    let out = authority.text("out");
    let codes = authority.curl(&["-w", format, "-o", &out, "-o", &out, "-o", &out, &large, &small, &large]);
    assert_eq!(codes, "200 1\n200 0\n200 0\n");
    assert!(std::fs::read(&out).unwrap() == content());

    let downloads = Downloads::new();
    downloads.get(&[&large, "--cacert", &authority.text("ca.pem")]).ended_with(0);
    assert!(downloads.read("large") == content());
}

#[test]
fn plain_http_at_the_tls_port_gets_a_400_page_in_plain_http() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let server = authority.server(&["own"], &[]);
    let answer = http::get(([127, 0, 0, 1], server.port).into(), "/small");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https://"), "{answer:?}");
}

#[test]
fn a_balancer_serves_the_challenges_of_authorities_itself() {
    let authority = Authority::new();
    let folder = authority.path("web/.well-known/acme-challenge");
    std::fs::create_dir_all(&folder).unwrap();
    let flags = ["--acme-webroot", &authority.text("web")];
    let balancer = Balancer::start_with("192.0.2.1:80\n", &flags);
    let url = "/.well-known/acme-challenge/abc-DEF_123";
    assert_eq!(balancer.get(url).status, 404);
    std::fs::write(folder.join("abc-DEF_123"), "abc-DEF_123.digest").unwrap();
    let answer = balancer.get(url);
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc-DEF_123.digest"));
    for other in ["/.well-known/acme-challenge/..%2f..%2fx", "/.well-known/acme-challenge/%2e%2e"] {
        assert_eq!(balancer.get(other).status, 404, "{other}");
    }
    assert_ne!(balancer.get("/.well-known/other").status, 404);
}

#[test]
fn the_admin_listener_can_use_https() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let mut flags = authority.flags(&["own"]);
    flags.push("--admin-tls".to_owned());
    std::fs::write(authority.path("list"), "192.0.2.1:80\n").unwrap();
    let mut command = fingerpost();
    command
        .args(["balancer", "--host", "127.0.0.1", "--workers", "1", "--servers"])
        .arg(authority.path("list"));
    let program = Program::spawn(command.args(flags));
    let url = program.stdout_after("Admin interface at ").replace("127.0.0.1", "localhost");
    assert!(url.starts_with("https://"), "{url}");
    let metrics = authority.curl(&["-4", &format!("{url}metrics")]);
    assert!(metrics.contains("fingerpost_certificate_end_timestamp_seconds{certificate="), "{metrics}");

    let status = |flags: &[&str]| {
        let output = fingerpost().args(["status", &url]).args(flags).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let with_authority = status(&["--ca", &authority.text("ca.pem")]);
    assert!(with_authority.contains("http://192.0.2.1:80"), "{with_authority}");
    let without = status(&[]);
    assert!(without.contains("certificate") && without.contains("--ca"), "{without}");
    let unusable = status(&["--ca", &authority.text("own.key")]);
    assert!(unusable.contains("own.key holds no certificate"), "{unusable}");
}

#[test]
fn a_webhook_is_notified_of_a_certificate_that_ends_soon() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let receiver = Script::prompt().start();
    std::fs::write(authority.path("list"), receiver.authority()).unwrap();
    let webhook = format!("http://{}/hook", receiver.authority());
    let mut command = fingerpost();
    command.args(["balancer", "--host", "127.0.0.1", "--workers", "1", "--servers"]);
    command.arg(authority.path("list")).args(authority.flags(&["own"]));
    let _program = Program::spawn(command.env("FINGERPOST__BALANCER__WEBHOOK", webhook));
    let is_notification = |request: &String| request.starts_with("POST /hook ");
    wait_until("the notification", || receiver.requests().iter().any(is_notification));
}

#[test]
fn unusable_certificates_are_reported_with_file_and_reason() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    authority.sign("other", "DNS:localhost");
    authority.openssl("ec -in own.key -aes128 -passout pass:x -out encrypted.key");
    std::fs::write(authority.path("garbage.pem"), "garbage").unwrap();
    std::fs::write(authority.path("list"), "192.0.2.1:80\n").unwrap();
    authority.openssl("x509 -in own.pem -noout");
    let report = |command: &[&str], flags: &[(&str, &Path)]| {
        let mut program = fingerpost();
        program.args(command);
        for (flag, path) in flags {
            program.env(format!("FINGERPOST__BALANCER__{flag}"), path);
        }
        program.env("FINGERPOST__BALANCER__SERVERS", authority.path("list"));
        let output = program.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let path = |name| authority.path(name);
    for (certificate, key, words) in [
        ("own.pem", "other.key", "other.key does not belong to the certificate"),
        ("missing.pem", "own.key", "missing.pem: check that it exists"),
        ("garbage.pem", "own.key", "garbage.pem: it has no certificate"),
        ("own.pem", "garbage.pem", "garbage.pem: it has no private key"),
        ("own.pem", "encrypted.key", "encrypted.key: its key has a passphrase"),
        ("files", "own.key", "files: it is not a regular file"),
    ] {
        let (certificate, key) = (path(certificate), path(key));
        for command in [&["check", "balancer"][..], &["balancer"]] {
            let text = report(command, &[("TLS_CERT", &certificate), ("TLS_KEY", &key)]);
            assert!(text.contains(words), "{text}");
        }
    }
    // The certificates of the tests end within 14 days.
    let text =
        report(&["check", "balancer"], &[("TLS_CERT", &path("own.pem")), ("TLS_KEY", &path("own.key"))]);
    assert!(text.contains("own.pem ends at ") && text.contains("1 problem."), "{text}");
    let text = report(&["balancer"], &[("TLS_KEY", &path("own.key"))]);
    assert!(text.contains("name it with --tls-cert"), "{text}");
    let text = report(&["balancer"], &[("BACKEND_CA", &path("garbage.pem"))]);
    assert!(text.contains("backend_ca") && text.contains("garbage.pem"), "{text}");
}
