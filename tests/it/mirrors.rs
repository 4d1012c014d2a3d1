//! Mirror networks: requests are redirected only to servers that have the file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;

use super::support::fleet::{Balancer, QUICK_PROBES};
use super::support::program::{Program, fingerpost};
use super::support::{digits, http, wait_for, wait_until};

/// Proofs several times a second.
const QUICK_PROOFS: (&str, &str) = ("PROOF_INTERVAL", "200ms");

/// A file server with its own folder.
pub struct Mirror {
    pub root: TempDir,
    pub authority: String,
    _program: Program,
}

impl Mirror {
    /// A server with the file of probes and these files.
    pub fn start(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().to_str().unwrap();
        let program = Program::start([
            "server",
            "--host",
            "127.0.0.1",
            "--workers",
            "1",
            "--cache-bytes",
            "0",
            "--listing",
            "--root",
            folder,
        ]);
        let authority = format!("127.0.0.1:{}", program.port());
        let mirror = Self { root, authority, _program: program };
        mirror.write("files/plshelp.txt", "probe");
        for (path, content) in files {
            mirror.write(path, content);
        }
        mirror
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.root.path().join(path)).unwrap();
    }
}

/// A balancer with a catalogue.
pub struct Network {
    pub balancer: Balancer,
    pub folder: TempDir,
}

impl Network {
    /// Starts a balancer for these lines of the list, and waits until all servers are up.
    pub fn start(lines: &[String], catalogue: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), lines, catalogue)
    }

    /// The same with servers that get equal shares: `adaptive` may send all downloads of a few bytes to the fastest one.
    pub fn start_random(lines: &[String], catalogue: &str) -> Self {
        Self::launch(tempfile::tempdir().unwrap(), lines, catalogue, "random")
    }

    /// The same with the state of an earlier run.
    pub fn start_in(folder: TempDir, lines: &[String], catalogue: &str) -> Self {
        Self::launch(folder, lines, catalogue, "adaptive")
    }

    fn launch(folder: TempDir, lines: &[String], catalogue: &str, policy: &str) -> Self {
        let path = folder.path().join("SHA256SUMS");
        std::fs::write(&path, catalogue).unwrap();
        let keys = [
            QUICK_PROOFS,
            ("POLICY", policy),
            ("PROBE_INTERVAL", "200ms"),
            ("SIZE_LOOKUPS", "false"),
            ("SCAN_INTERVAL", "1s"),
            ("STATE", folder.path().to_str().unwrap()),
            ("CATALOGUE", path.to_str().unwrap()),
        ];
        let balancer = Balancer::start_with_keys(&lines.join("\n"), &keys);
        for line in lines {
            balancer.wait_for_state(line.split(' ').next().unwrap(), "up");
        }
        Self { balancer, folder }
    }

    pub fn catalogue_path(&self) -> PathBuf {
        self.folder.path().join("SHA256SUMS")
    }

    /// Replaces the catalogue, as a careful program does.
    pub fn replace_catalogue(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.catalogue_path()).unwrap();
    }

    pub fn wait_for_generation(&self, generation: f64) {
        wait_until("the catalogue to be in force", || {
            self.balancer.metric("fingerpost_catalogue_generation") == Some(generation)
        });
    }

    /// The servers to which `count` requests for the file are redirected.
    pub fn targets(&self, path: &str, count: usize) -> BTreeSet<String> {
        let targets = (0..count).map(|number| {
            // A query, so that a request is not the retry of another.
            let answer = self.balancer.get(&format!("{path}?{number}"));
            assert_eq!(answer.status, 301, "{answer:?}");
            answer.location()["http://".len()..].split('/').next().unwrap().to_owned()
        });
        targets.collect()
    }

    /// `has_file` and its reason for each server, by authority.
    pub fn explain(&self, path: &str) -> Vec<(String, String, String)> {
        let query = format!("/api/v1/explain?path={}", path.replace('%', "%25"));
        let answer = http::get(self.balancer.admin_address(), &query);
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let backends = json["backends"].as_array().unwrap().iter();
        backends
            .map(|backend| {
                let authority = text(&backend["backend"])["http://".len()..].to_owned();
                (authority, text(&backend["has_file"]), text(&backend["has_file_reason"]))
            })
            .collect()
    }

    pub fn has_file(&self, mirror: &Mirror, path: &str) -> (String, String) {
        let all = self.explain(path);
        let own = all.into_iter().find(|(authority, ..)| *authority == mirror.authority).unwrap();
        (own.1, own.2)
    }
}

/// Lines of `sha256sum`.
pub fn sums(files: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (path, content) in files {
        writeln!(text, "{}  {path}", digits::<Sha256>(content.as_bytes())).unwrap();
    }
    text
}

pub fn lines(mirrors: &[&Mirror], attributes: &str) -> Vec<String> {
    mirrors.iter().map(|mirror| format!("{}{attributes}", mirror.authority)).collect()
}

#[test]
fn unknown_paths_get_the_404_page_or_the_origin() {
    let files = [("pool/a b.iso", "content")];
    let [mirror, origin] = [Mirror::start(&files), Mirror::start(&files)];
    let network = Network::start(&lines(&[&mirror], ""), &sums(&files));
    for (path, status) in [
        ("/pool/a%20b.iso", 301),
        ("/files/pool/a%20b.iso?x=1", 301),
        ("/pool", 301),
        ("/pool/", 301),
        ("/", 301),
        ("/pool/other.iso", 404),
        ("/files/plshelp.txt", 404),
        ("/pool/a%20b.iso/x", 404),
        ("/pool//x", 404),
        ("/pool/../x", 400),
    ] {
        assert_eq!(network.balancer.get(path).status, status, "{path}");
    }
    let answer = network.balancer.get("/files/pool/a%20b.iso?x=1");
    assert_eq!(answer.location(), format!("http://{}/files/pool/a%20b.iso?x=1", mirror.authority));
    assert!(network.balancer.get("/nothing").text().contains("404"));

    let list = format!("{}\n{} origin tier=1", mirror.authority, origin.authority);
    network.balancer.replace_list(&list);
    network.balancer.wait_for_state(&origin.authority, "up");
    assert_eq!(network.targets("/pool/a%20b.iso", 10), BTreeSet::from([mirror.authority.clone()]));
    assert_eq!(network.targets("/pool/other.iso", 10), BTreeSet::from([origin.authority.clone()]));
    wait_until("the origin to be known", || {
        network.has_file(&origin, "/pool/a%20b.iso") == ("yes".into(), "it is the origin".into())
    });
}

#[test]
fn one_missing_file_excludes_the_files_of_its_folder_until_each_is_checked() {
    let files: Vec<(String, &str)> =
        (0..30).map(|number| (format!("pool/{number}.deb"), "content")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    let [full, partial] = [Mirror::start(&files), Mirror::start(&files)];
    partial.remove("pool/7.deb");
    let mut all = files.clone();
    all.push(("other/x", "x"));
    full.write("other/x", "x");
    partial.write("other/x", "x");
    let network = Network::start(&lines(&[&full, &partial], ""), &sums(&all));
    assert_eq!(network.has_file(&partial, "/pool/7.deb").0, "unproven");
    wait_until("the missing file to be known", || {
        network.targets("/pool/7.deb", 4);
        network.has_file(&partial, "/pool/7.deb") == ("no".into(), "it answered 404 for this file".into())
    });
    assert_eq!(network.targets("/pool/7.deb", 50), BTreeSet::from([full.authority.clone()]));
    let missing = network.balancer.metric("fingerpost_missing_redirects_total").unwrap();
    assert!((1.0..=3.0).contains(&missing), "{missing}");
    // Files of other folders are not affected, and the other files of the folder return.
    assert!(network.targets("/other/x", 20).contains(&partial.authority));
    wait_until("the other files to return", || {
        network.balancer.metric("fingerpost_lacking_files") == Some(1.0)
    });
    assert_eq!(network.has_file(&partial, "/pool/8.deb").0, "unproven");

    // If no server has a file, clients are asked to come back.
    full.remove("pool/7.deb");
    wait_until("no server to have the file", || {
        let answer = network.balancer.get("/pool/7.deb");
        answer.status == 503 && answer.header("Retry-After").is_some()
    });
}

#[test]
fn a_new_file_is_redirected_only_to_mirrors_that_prove_the_release() {
    let old = [("release", "1"), ("a", "old")];
    let new = [("release", "2"), ("a", "new"), ("b", "added"), ("c", "same")];
    let start = [("release", "1"), ("a", "old"), ("c", "same")];
    let mirrors = [Mirror::start(&start), Mirror::start(&start), Mirror::start(&start)];
    let [first, second, stale] = &mirrors;
    stale.write("release", "0");
    let network =
        Network::start(&lines(&[first, second, stale], " proof=/release"), &sums(&[old[0], old[1], new[3]]));
    wait_until("the stale mirror to be known", || network.has_file(stale, "/a").0 == "no");
    wait_until("the proofs", || {
        network.has_file(first, "/a").0 == "yes" && network.has_file(second, "/a").0 == "yes"
    });
    assert!(!network.targets("/a", 50).contains(&stale.authority));
    assert!(network.has_file(stale, "/a").1.starts_with("its proof belongs to no known generation"));

    network.replace_catalogue(&sums(&new));
    network.wait_for_generation(2.0);
    assert_eq!(network.balancer.get("/b").status, 503);
    assert_eq!(network.balancer.get("/a").status, 503);
    assert!(!network.targets("/c", 50).contains(&stale.authority));
    let (has_file, reason) = network.has_file(first, "/b");
    assert_eq!(has_file, "no");
    assert_eq!(reason, "the file is newer than generation 1, the latest that the server has proven");

    for (path, content) in new {
        second.write(path, content);
    }
    wait_until("the proof of the release", || network.has_file(second, "/b").0 == "yes");
    assert_eq!(network.targets("/b", 20), BTreeSet::from([second.authority.clone()]));
    assert_eq!(network.targets("/a", 20), BTreeSet::from([second.authority.clone()]));
    assert_eq!(network.has_file(first, "/c").0, "yes");
}

#[test]
fn an_unusable_catalogue_prevents_a_start_and_changes_nothing_later() {
    let files = [("a", "content")];
    let mirror = Mirror::start(&files);
    let network = Network::start(&lines(&[&mirror], ""), &sums(&files));
    network.replace_catalogue("d41d8cd98f00b204e9800998ecf8427e  a\n");
    network.balancer.program().wait_for_stderr("the last good one stays in force");
    network.balancer.program().wait_for_stderr("line 1: 32 hexadecimal digits are not a SHA-256 digest");
    std::fs::remove_file(network.catalogue_path()).unwrap();
    network.balancer.program().wait_for_stderr("cannot read the catalogue");
    assert_eq!((network.balancer.get("/a").status, network.balancer.get("/b").status), (301, 404));
    network.replace_catalogue(&sums(&[("b", "x")]));
    network.wait_for_generation(2.0);
    assert_eq!((network.balancer.get("/a").status, network.balancer.get("/b").status), (404, 301));

    let folder = tempfile::tempdir().unwrap();
    let [list, catalogue] = ["list", "sums"].map(|name| folder.path().join(name));
    std::fs::write(&list, &mirror.authority).unwrap();
    std::fs::write(&catalogue, "nonsense\n").unwrap();
    let paths = [&list, &catalogue].map(|path| path.to_str().unwrap());
    let mut command = fingerpost();
    command.args(["balancer", "--servers", paths[0], "--catalogue", paths[1]]).args(QUICK_PROBES);
    let mut program = Program::spawn(&mut command);
    assert_eq!(program.wait().code(), Some(1));
    let message = program.stderr();
    assert!(message.contains(paths[1]) && message.contains("line 1: nonsense: write a SHA-256"), "{message}");
}

#[test]
fn a_catalogue_can_be_downloaded() {
    let files = [("a", "content")];
    let list = sums(&files);
    let mirror = Mirror::start(&[("a", "content"), ("SHA256SUMS", &list)]);
    let url = format!("http://{}/SHA256SUMS", mirror.authority);
    let line = format!("{} proof=SHA256SUMS", mirror.authority);
    let balancer = Balancer::start_with(&line, &[&QUICK_PROBES[..], &["--catalogue", &url]].concat());
    balancer.wait_for_state(&mirror.authority, "up");
    wait_for("the catalogue", || (balancer.get("/b").status == 404).then_some(()));
    assert_eq!(balancer.get("/a").status, 301);
}

#[test]
fn documents_name_the_servers_that_have_the_file() {
    let files = [("pool/a b.iso", "content"), ("pool/x.meta4", "own")];
    let [full, partial] = [Mirror::start(&files), Mirror::start(&files[1..])];
    let network = Network::start(&lines(&[&full, &partial], ""), &sums(&files));
    wait_until("the missing file to be known", || {
        network.targets("/pool/a%20b.iso", 2);
        network.has_file(&partial, "/pool/a%20b.iso").0 == "no"
    });
    let (url, digest) = (format!("http://{}/pool/a%20b.iso", full.authority), digits::<Sha256>(b"content"));
    let answer = network.balancer.get("/pool/a%20b.iso.meta4");
    assert_eq!(answer.header("Content-Type"), Some("application/metalink4+xml"));
    let text = answer.text();
    assert!(text.contains("<file name=\"a b.iso\">"), "{text}");
    assert!(text.contains(&format!("<hash type=\"sha-256\">{digest}</hash>")), "{text}");
    assert!(text.contains(&format!("<url priority=\"1\">{url}</url>\n  </file>")), "{text}");
    let text = network.balancer.get("/pool/a%20b.iso.metalink").text();
    assert!(text.contains(&format!("preference=\"100\">{url}</url>")), "{text}");
    assert_eq!(network.balancer.get("/pool/a%20b.iso.sha256").text(), format!("{digest}  a b.iso\n"));
    assert_eq!(network.balancer.get("/pool/a%20b.iso?mirrorlist").text(), format!("{url}\n"));
    for (format, expected) in [
        ("text", format!("{url}\n")),
        ("apt", format!("{url}\tpriority:1\n")),
        ("json", format!("[{{\"url\":\"{url}\"}}]\n")),
    ] {
        assert_eq!(network.balancer.get(&format!("/pool/a%20b.iso?mirrorlist={format}&x")).text(), expected);
    }
    // After the first missing file, the other files of the folder are checked before they are used again.
    wait_until("the check of the other file", || network.has_file(&partial, "/pool/x.meta4").0 != "no");
    // A folder is left out if the server has none of its files.
    let folder = network.balancer.get("/pool?mirrorlist").text();
    assert_eq!(folder.lines().count(), 2, "{folder}");
    assert!(folder.lines().all(|line| line.ends_with("/pool/")), "{folder}");
    let list = |accept| {
        let head = format!("GET /pool/a%20b.iso?mirrorlist HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        let mut connection = http::Connection::open(network.balancer.address()).unwrap();
        connection.send(head).unwrap();
        connection.answer(http::Expect::Body).unwrap().text()
    };
    assert_eq!(list("application/json"), format!("[{{\"url\":\"{url}\"}}]\n"));
    assert!(list("text/html,*/*").contains(&format!("<a href=\"{url}\">")));
    for (path, status) in [
        ("/pool/x.meta4", 301),
        ("/pool/x.meta4.meta4", 200),
        ("/pool/none.iso.meta4", 404),
        ("/pool.meta4", 404),
        ("/pool/?mirrorlist", 200),
        ("/none?mirrorlist", 404),
    ] {
        assert_eq!(network.balancer.get(path).status, status, "{path}");
    }

    // The fast path and the other one send the same lines.
    for head in ["GET", "HEAD"] {
        let mut connection = http::Connection::open(network.balancer.address()).unwrap();
        connection.send(format!("{head} /pool/a%20b.iso HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
        let expect = if head == "GET" { http::Expect::Body } else { http::Expect::HeadOnly };
        let answer = connection.answer(expect).unwrap();
        let digest = "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=";
        assert_eq!(answer.header("Digest"), Some(format!("SHA-256={digest}").as_str()));
        assert_eq!(answer.header("Repr-Digest"), Some(format!("sha-256=:{digest}:").as_str()));
        assert_eq!(
            answer.header("Link"),
            Some("<./a%20b.iso.meta4>; rel=describedby; type=\"application/metalink4+xml\"")
        );
    }
    let target = network.folder.path().join("out");
    let status = fingerpost()
        .args(["get", "--silent", "-o", target.to_str().unwrap()])
        .arg(format!("http://{}/pool/a%20b.iso.meta4", network.balancer.address()))
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(target).unwrap(), "content");
}

#[test]
fn the_loss_of_a_folder_costs_few_redirects() {
    let files: Vec<String> =
        (0..400).map(|number| format!("{}/{number}.deb", ["left", "right"][number % 2])).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "content")).collect();
    let mirrors: Vec<Mirror> = (0..4).map(|_| Mirror::start(&files)).collect();
    let network = Network::start(&lines(&mirrors.iter().collect::<Vec<_>>(), ""), &sums(&files));
    let mut connection = http::Connection::open(network.balancer.address()).unwrap();
    let mut redirects = |count: usize| {
        let mut wrong = 0;
        let mut to_first = BTreeSet::new();
        for number in 0..count {
            let path = files[number * 7 % files.len()].0;
            let answer = connection.get(&format!("/{path}")).unwrap();
            assert_eq!(answer.status, 301, "{answer:?}");
            if answer.location().starts_with(&format!("http://{}/", mirrors[0].authority)) {
                wrong += usize::from(!mirrors[0].root.path().join(path).exists());
                to_first.insert(path.split('/').next().unwrap());
            }
            // About 1 000 requests per second.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        (wrong, to_first)
    };
    assert_eq!(redirects(400), (0, BTreeSet::from(["left", "right"])));
    assert_eq!(network.has_file(&mirrors[0], "/left/0.deb").0, "unproven");
    std::fs::remove_dir_all(mirrors[0].root.path().join("left")).unwrap();
    let (wrong, _) = redirects(3000);
    // Without checks, 375: of at most 1 000 redirects per second, 125 are for a missing file. Every second redirect for a folder
    // is a sample. At most eight wait, one for each server and folder, and four start in 10 ms, so the loss is found after at
    // most 2 redirects and 30 ms (4 redirects); twice as many if the processor is busy.
    assert!(wrong <= 12, "{wrong} redirects to a missing file");
    assert_eq!(redirects(1000).0, 0);
    assert_eq!(network.has_file(&mirrors[0], "/left/0.deb").0, "no");
    assert_eq!(network.has_file(&mirrors[0], "/right/1.deb").0, "unproven");
}

#[test]
fn the_knowledge_survives_a_kill() {
    let old = [("release", "1"), ("a", "same"), ("b", "old")];
    let new = [("release", "2"), ("a", "same"), ("b", "new")];
    let [behind, partial] = [Mirror::start(&old), Mirror::start(&old)];
    partial.remove("a");
    let list = [format!("{} proof=release", behind.authority), partial.authority.clone()];
    let network = Network::start(&list, &sums(&old));
    wait_until("the evidence", || {
        network.targets("/a", 2);
        network.has_file(&partial, "/a").0 == "no" && network.has_file(&behind, "/a").0 == "yes"
    });
    // A new generation is written at once.
    let file = network.folder.path().join("catalogue.bin");
    let written = || std::fs::metadata(&file).ok()?.modified().ok();
    wait_until("the first write", || written().is_some());
    let before = written();
    network.replace_catalogue(&sums(&[old[0], old[1], old[2], ("c", "added")]));
    network.wait_for_generation(2.0);
    wait_until("the second write", || written() != before);
    wait_until("the proof of the second generation", || {
        network.has_file(&behind, "/a").1.contains("generation 2")
    });

    let Network { mut balancer, folder } = network;
    balancer.program_mut().kill();
    drop(balancer);
    // Another order of the list, and another catalogue.
    let list = [list[1].clone(), list[0].clone()];
    let network = Network::start_in(folder, &list, &sums(&new));
    network.wait_for_generation(3.0);
    assert_eq!(network.has_file(&partial, "/a"), ("no".into(), "it answered 404 for this file".into()));
    let (has_file, reason) = network.has_file(&behind, "/a");
    assert!(has_file == "yes" && reason.contains("generation 2"), "{has_file} {reason}");
    assert_eq!(network.has_file(&behind, "/b").0, "no");

    // A damaged file is moved aside.
    let Network { mut balancer, folder } = network;
    balancer.program_mut().kill();
    drop(balancer);
    std::fs::write(folder.path().join("catalogue.bin"), "damage").unwrap();
    let network = Network::start_in(folder, &list, &sums(&new));
    network.balancer.program().wait_for_stderr("a state file is not usable and was moved aside");
    assert_eq!(network.balancer.metric("fingerpost_catalogue_generation"), Some(1.0));
}

#[test]
fn a_folder_can_be_the_catalogue() {
    let files = [("pool/a", "content")];
    let [master, mirror] = [Mirror::start(&files), Mirror::start(&files)];
    let root = master.root.path().to_str().unwrap();
    let balancer =
        Balancer::start_with(&mirror.authority, &[&QUICK_PROBES[..], &["--catalogue-root", root]].concat());
    balancer.wait_for_state(&mirror.authority, "up");
    wait_until("the scan", || balancer.get("/pool/b").status == 404);
    assert_eq!(balancer.get("/pool/a").status, 301);
    let digest = digits::<Sha256>(b"content");
    assert_eq!(balancer.get("/pool/a.sha256").text(), format!("{digest}  a\n"));
    assert!(balancer.get("/pool/a.meta4").text().contains("<size>7</size>"));
    master.write("pool/b", "added");
    wait_until("the new file", || balancer.get("/pool/b").status == 301);

    let output =
        fingerpost().args(["balancer", "--catalogue", "x", "--catalogue-root", root]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
