//! A mirror network of real programs: nginx and `fingerpost server` as mirrors, and apt, aria2, curl, librepo and
//! `fingerpost get` as clients.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;

use super::support::downloads::Downloads;
use super::support::fleet::Balancer;
use super::support::http::{self, Connection};
use super::support::misbehaving::content;
use super::support::program::Program;
use super::support::tools::{Nginx, are_installed, run};
use super::support::{digits, wait_at_most, wait_until};

const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/certificate.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/key.pem");

/// The number of folders of the tree.
const FOLDERS: usize = 12;

/// The clients that send requests at the same time.
const CLIENTS: usize = 4;

/// The files of a release by path, without a slash at the start.
type Tree = BTreeMap<String, Vec<u8>>;

/// A release with this many files, with its list `SHA256SUMS` and the file of probes.
fn release(files: usize) -> Tree {
    let mut tree = Tree::new();
    for number in 0..files {
        let content = format!("file {number}\n").repeat(1 + number % 400);
        tree.insert(format!("pool/{}/{number}.deb", number % FOLDERS), content.into_bytes());
    }
    tree.insert("iso/large.iso".to_owned(), content(3 << 20));
    let sums = sums(&tree);
    tree.insert("SHA256SUMS".to_owned(), sums.into_bytes());
    tree.insert("files/plshelp.txt".to_owned(), b"probe".to_vec());
    tree
}

/// The lines of `sha256sum`.
fn sums(tree: &Tree) -> String {
    tree.iter().fold(String::new(), |mut text, (path, content)| {
        writeln!(text, "{}  {path}", digits::<Sha256>(content)).unwrap();
        text
    })
}

/// Writes a tree. The list of the release is the last file, as a careful mirror does it.
fn write(root: &Path, tree: &Tree) {
    for (path, content) in tree.iter().filter(|(path, _)| *path != "SHA256SUMS") {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    if let Some(list) = tree.get("SHA256SUMS") {
        std::fs::write(root.join("SHA256SUMS.new"), list).unwrap();
        std::fs::rename(root.join("SHA256SUMS.new"), root.join("SHA256SUMS")).unwrap();
    }
}

fn folder_of(tree: &Tree) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    // nginx may run as another user.
    std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    write(root.path(), tree);
    root
}

fn serve(root: &Path, flags: &[&str]) -> Program {
    let fixed = ["server", "--host", "127.0.0.1", "--workers", "1", "--root", root.to_str().unwrap()];
    let program = Program::start(fixed.iter().chain(flags));
    program.port();
    program
}

/// A mirror: its address as in a `Location`, the rest of its line, and the folder that it serves.
struct Mirror {
    address: String,
    attributes: &'static str,
    root: PathBuf,
}

/// `has_file` and its reason for each address.
fn explain(balancer: &Balancer, path: &str) -> BTreeMap<String, (String, String)> {
    let answer = http::get(balancer.admin_address(), &format!("/api/v1/explain?path={path}"));
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let backends = json["backends"].as_array().unwrap().iter();
    backends
        .map(|backend| {
            (text(&backend["backend"]), (text(&backend["has_file"]), text(&backend["has_file_reason"])))
        })
        .collect()
}

/// Sends requests for these paths, about 1 000 per second, from several clients until each has sent `count`. Returns the
/// paths, and the addresses to which they were redirected.
fn redirects(address: SocketAddr, paths: &[String], count: usize) -> Vec<(String, String)> {
    let client = |client: usize| {
        let mut connection = Connection::open(address).unwrap();
        let mut seen = Vec::with_capacity(count);
        for number in 0..count {
            let path = &paths[(number * 7 + client * 31) % paths.len()];
            // A query, so that a request is not the retry of another.
            let answer = connection.get(&format!("/{path}?{client}-{number}")).unwrap();
            assert_eq!(answer.status, 301, "{answer:?}");
            let location = answer.location();
            seen.push((path.clone(), location[..location.find(&format!("/{path}")).unwrap()].to_owned()));
            thread::sleep(Duration::from_millis(CLIENTS as u64));
        }
        seen
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// The balancer of `mirrors` with the catalogue of `tree`. The folder has the catalogue.
fn balancer(mirrors: &[&Mirror], tree: &Tree, folder: &Path) -> Balancer {
    let catalogue = folder.join("sums");
    std::fs::write(&catalogue, &tree["SHA256SUMS"]).unwrap();
    let lines: Vec<_> =
        mirrors.iter().map(|mirror| format!("{}{}", mirror.address, mirror.attributes)).collect();
    let keys = [
        ("PROOF_INTERVAL", "200ms"),
        ("PROBE_INTERVAL", "200ms"),
        ("SIZE_LOOKUPS", "false"),
        // Uses all mirrors, however slow the machine is.
        ("POLICY", "random"),
        ("BACKEND_CA", CERTIFICATE),
        ("CATALOGUE", catalogue.to_str().unwrap()),
    ];
    let balancer = Balancer::start_with_keys(&lines.join("\n"), &keys);
    wait_until("all mirrors to be up", || balancer.backends().iter().all(|backend| backend["state"] == "up"));
    balancer
}

const PROVEN: &str = " proof=/SHA256SUMS";

#[test]
fn a_network_sends_no_client_to_a_mirror_known_to_lack_the_file() {
    a_network_of_mirrors(300);
}

/// Takes several minutes.
#[test]
#[ignore = "writes 160 000 files, and checks 50 of them per second"]
fn a_network_of_20_000_files_sends_no_client_to_a_mirror_known_to_lack_the_file() {
    a_network_of_mirrors(20_000);
}

/// Eight mirrors of different kinds, and their balancer.
struct Network {
    full: Mirror,
    syncing: Mirror,
    partial: Mirror,
    stale: Mirror,
    corrupt: Mirror,
    empty: Mirror,
    https: Mirror,
    redirecting: Mirror,
    balancer: Balancer,
    /// Has the catalogue.
    folder: TempDir,
    _roots: Vec<TempDir>,
    _nginx: [Nginx; 3],
    _servers: Vec<Program>,
}

impl Network {
    fn start(release: &Tree) -> Self {
        let mut partial = release.clone();
        partial.retain(|path, _| !path.starts_with("pool/3/"));
        let (mut stale, mut corrupt) = (release.clone(), release.clone());
        for content in stale.values_mut() {
            content.insert(0, b'x');
        }
        for content in corrupt.values_mut() {
            *content.last_mut().unwrap() ^= 1;
        }
        let probe = ("files/plshelp.txt".to_owned(), b"probe".to_vec());
        stale.extend([probe.clone()]);
        corrupt.extend([probe.clone()]);
        let trees = [release, release, &partial, &stale, &corrupt, &Tree::from([probe]), release];
        let roots: Vec<TempDir> = trees.map(folder_of).into_iter().collect();
        let root = |number: usize| roots[number].path().to_owned();
        let [first, second] = [0, 2].map(|number| Nginx::serve(&root(number)));
        let target = format!("http://{}", first.authority());
        let nginx = [first, second, Nginx::redirect(&root(5), &target)];
        let mut servers: Vec<Program> =
            [1, 3, 4, 5].map(|number| serve(&root(number), &["--cache-bytes", "0"])).into_iter().collect();
        servers.push(serve(&root(6), &["--cache-bytes", "0", "--tls-cert", CERTIFICATE, "--tls-key", KEY]));
        let tls_port = servers[4].stdout_after("Will wait for TLS client connections at port ");
        let mirror = |address: String, attributes, number| Mirror { address, attributes, root: root(number) };
        let of_nginx = |at: usize, attributes, number| {
            mirror(format!("http://{}", nginx[at].authority()), attributes, number)
        };
        let of_server = |at: usize, attributes, number| {
            mirror(format!("http://{}", servers[at].address()), attributes, number)
        };
        let full = of_nginx(0, PROVEN, 0);
        let syncing = of_server(0, PROVEN, 1);
        let partial = of_nginx(1, "", 2);
        let stale = of_server(1, PROVEN, 3);
        let corrupt = of_server(2, "", 4);
        let empty = of_server(3, "", 5);
        let https = mirror(format!("https://127.0.0.1:{tls_port}"), PROVEN, 6);
        let redirecting = of_nginx(2, "", 0);
        let folder = tempfile::tempdir().unwrap();
        let mirrors = [&full, &syncing, &partial, &stale, &corrupt, &empty, &https, &redirecting];
        let balancer = balancer(&mirrors, release, folder.path());
        Self {
            full,
            syncing,
            partial,
            stale,
            corrupt,
            empty,
            https,
            redirecting,
            balancer,
            folder,
            _roots: roots,
            _nginx: nginx,
            _servers: servers,
        }
    }

    fn has(&self, mirror: &Mirror, path: &str, expected: &str) -> bool {
        explain(&self.balancer, path).get(&mirror.address).is_some_and(|(has, _)| has == expected)
    }

    fn redirects(&self, paths: &[String], count: usize) -> Vec<(String, String)> {
        redirects(self.balancer.address(), paths, count)
    }

    /// The redirects to a mirror without the file.
    fn wrong<'a>(&self, seen: &'a [(String, String)]) -> Vec<&'a (String, String)> {
        let Self { full, syncing, partial, stale, corrupt, empty, https, redirecting, .. } = self;
        let mirrors = [full, syncing, partial, stale, corrupt, empty, https, redirecting];
        let root = |address: &str| &mirrors.iter().find(|mirror| mirror.address == address).unwrap().root;
        seen.iter().filter(|(path, address)| !root(address).join(path).exists()).collect()
    }

    /// The lacks of mirrors without proof are found with few redirects.
    fn find_lacks(&self, paths: &[String]) {
        let proven = [&self.full, &self.syncing, &self.https];
        wait_until("the proofs", || {
            let path = "/pool/0/0.deb";
            proven.iter().all(|mirror| self.has(mirror, path, "yes")) && self.has(&self.stale, path, "no")
        });
        let mut wrong = 0;
        wait_until("all lacks to be known", || {
            let seen = self.redirects(paths, 50);
            assert!(
                seen.iter().all(|(_, address)| *address != self.stale.address),
                "the stale mirror is used"
            );
            wrong += self.wrong(&seen).len();
            let mut folders = 0..FOLDERS;
            folders.all(|folder| self.has(&self.empty, &format!("/pool/{folder}/{folder}.deb"), "no"))
                && self.has(&self.partial, "/pool/3/3.deb", "no")
        });
        let most = 5 * (FOLDERS + 1);
        assert!(wrong <= most, "{wrong} redirects to a missing file, at most {most} are expected");
    }

    /// No redirect is wrong, all mirrors with files are used, and each download is right.
    fn serve(&self, paths: &[String], release: &Tree) {
        let is_over = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut all = Vec::new();
                while !is_over.load(Ordering::Relaxed) || all.len() < 2000 {
                    all.extend(self.redirects(paths, 100));
                }
                all
            });
            download_some(&self.balancer, release);
            is_over.store(true, Ordering::Relaxed);
            load.join().unwrap()
        });
        let wrong = self.wrong(&seen);
        assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), seen.len(), wrong.first());
        let is_used = |mirror: &Mirror| seen.iter().any(|(_, address)| *address == mirror.address);
        let Self { full, syncing, partial, corrupt, https, redirecting, .. } = self;
        for mirror in [full, syncing, partial, corrupt, https, redirecting] {
            assert!(is_used(mirror), "{} is unused", mirror.address);
        }
        assert!(!is_used(&self.stale) && !is_used(&self.empty));
    }

    /// A proven mirror gets no client for a new file before it has it.
    fn replace_release(&self, old: &Tree, new: &Tree) {
        for mirror in [&self.full, &self.https] {
            write(&mirror.root, new);
        }
        std::fs::write(self.folder.path().join("new"), &new["SHA256SUMS"]).unwrap();
        std::fs::rename(self.folder.path().join("new"), self.folder.path().join("sums")).unwrap();
        let added: Vec<String> = new.keys().filter(|path| !old.contains_key(*path)).cloned().collect();
        let path = format!("/{}", added[0]);
        wait_until("the release at two mirrors", || {
            [&self.full, &self.https].iter().all(|mirror| self.has(mirror, &path, "yes"))
                && self.has(&self.syncing, &path, "no")
        });
        let is_syncing = |(_, address): &(String, String)| *address == self.syncing.address;
        assert!(!self.redirects(&added, 100).iter().any(is_syncing));
        write(&self.syncing.root, new);
        wait_until("the release at the third mirror", || self.has(&self.syncing, &path, "yes"));
        assert!(self.redirects(&added, 100).iter().any(is_syncing));
        download_some(&self.balancer, new);
    }

    /// Each mirror has a reason.
    fn check_reasons(&self) {
        let Self { full, syncing, partial, stale, corrupt, empty, https, redirecting, .. } = self;
        let path = "/pool/3/3.deb";
        // At most 50 files per second are checked.
        wait_at_most(Duration::from_mins(5), "the files of the corrupt mirror to be checked again", || {
            let is_back = self.has(corrupt, path, "unproven") && self.has(redirecting, path, "unproven");
            is_back.then_some(())
        });
        let reasons = explain(&self.balancer, path);
        let since = "its proof is the one of generation 2";
        let (unproven, lacks) = ("its line has no proof=", "this f");
        for (mirror, expected, reason) in [
            (full, "yes", since),
            (syncing, "yes", since),
            (partial, "no", lacks),
            (stale, "no", "its proof belongs to no known generation"),
            (corrupt, "unproven", unproven),
            (empty, "no", lacks),
            (https, "yes", since),
            (redirecting, "unproven", unproven),
        ] {
            let (has, why) = &reasons[&mirror.address];
            let place = &mirror.address;
            assert!(has == expected && why.contains(reason), "{place} {expected} {reason}: {reasons:?}");
        }
    }
}

fn a_network_of_mirrors(files: usize) {
    if !are_installed(&["nginx"]) {
        return;
    }
    let (old, new) = (release(files), release(files + FOLDERS));
    let paths: Vec<String> = old.keys().filter(|path| path.contains(".deb")).cloned().collect();
    let network = Network::start(&old);
    network.find_lacks(&paths);
    network.serve(&paths, &old);
    network.replace_release(&old, &new);
    network.check_reasons();
}

/// Downloads files with `get`, each of which must be right although a mirror sends wrong bytes.
fn download_some(balancer: &Balancer, tree: &Tree) {
    let some = tree.keys().filter(|path| path.starts_with("pool/")).step_by(tree.len() / 12);
    let paths: Vec<&String> = some.chain(tree.keys().filter(|path| path.starts_with("iso/"))).collect();
    for path in paths {
        let downloads = Downloads::new();
        let url = format!("http://{}/{path}", balancer.address());
        downloads.get_quickly(&[&url, "-o", "file", "--cacert", CERTIFICATE]).ended_with(0);
        assert!(downloads.read("file") == tree[path], "{path}");
    }
}

/// Three mirrors of a tree, all of them nginx, and a balancer for them.
struct Repository {
    mirrors: Vec<(Nginx, TempDir)>,
    balancer: Balancer,
    _folder: TempDir,
}

impl Repository {
    fn start(mut tree: Tree) -> Self {
        // The target of a request, in a query.
        let path = format!("/{}", tree.keys().next().unwrap().replace(' ', "%2520").replace('+', "%2B"));
        tree.insert("SHA256SUMS".to_owned(), sums(&tree).into_bytes());
        tree.insert("files/plshelp.txt".to_owned(), b"probe".to_vec());
        let start = |_| {
            let root = folder_of(&tree);
            (Nginx::serve(root.path()), root)
        };
        let mirrors: Vec<_> = (0..3).map(start).collect();
        let lines: Vec<Mirror> = mirrors
            .iter()
            .map(|(nginx, root)| Mirror {
                address: format!("http://{}", nginx.authority()),
                attributes: PROVEN,
                root: root.path().to_owned(),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let balancer = balancer(&lines.iter().collect::<Vec<_>>(), &tree, folder.path());
        wait_until("the proofs", || explain(&balancer, &path).values().all(|(has, _)| has == "yes"));
        Self { mirrors, balancer, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.balancer.address())
    }
}

#[test]
fn aria2_downloads_from_three_mirrors() {
    if !are_installed(&["nginx", "aria2c"]) {
        return;
    }
    let large = content(12 << 20);
    let repository = Repository::start(Tree::from([("iso/large.iso".to_owned(), large.clone())]));
    // A Metalink, and then only `Link` and `Digest` of the redirect.
    for (round, url) in ["/iso/large.iso.meta4", "/iso/large.iso"].into_iter().enumerate() {
        let target = tempfile::tempdir().unwrap();
        run(Command::new("aria2c")
            .args([
                "--no-conf",
                "--quiet",
                "--split=3",
                "--min-split-size=1M",
                "--max-connection-per-server=1",
            ])
            .args(["--max-overall-download-limit=4M", "--check-integrity=true", "--dir"])
            .arg(target.path())
            .arg(repository.url(url)));
        assert!(std::fs::read(target.path().join("large.iso")).unwrap() == large, "{url}");
        for (nginx, _) in &repository.mirrors {
            wait_until("each mirror to have sent a part", || nginx.count("/iso/large.iso") > round);
        }
    }
    // Wrong bytes of all mirrors are noticed by the digest.
    for (_, root) in &repository.mirrors {
        let mut wrong = large.clone();
        wrong[5 << 20] ^= 1;
        std::fs::write(root.path().join("iso/large.iso"), wrong).unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    let output = Command::new("aria2c")
        .args(["--no-conf", "--quiet", "--max-tries=1", "--dir"])
        .arg(target.path())
        .arg(repository.url("/iso/large.iso"))
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn curl_and_wget_follow_the_redirect() {
    if !are_installed(&["nginx", "curl", "wget"]) {
        return;
    }
    let repository = Repository::start(Tree::from([("a b/x+y.txt".to_owned(), b"content".to_vec())]));
    for (client, flags) in [("curl", &["-sfL"][..]), ("wget", &["-q", "-O", "-"])] {
        let output = run(Command::new(client).args(flags).arg(repository.url("/a%20b/x+y.txt")));
        assert_eq!(output.stdout, b"content", "{client}");
    }
}

/// A Debian repository with one package, `greeting`.
fn debian_repository(folder: &Path) -> Tree {
    let root = folder.join("greeting");
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    std::fs::write(root.join("greeting.txt"), "hello\n").unwrap();
    let control = "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: test\n";
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    run(Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&root).arg(folder));
    let package = std::fs::read(folder.join("greeting_1.0_all.deb")).unwrap();
    let path = "debian/pool/main/g/greeting_1.0_all.deb";
    let file_name = path.trim_start_matches("debian/");
    let (size, digest) = (package.len(), digits::<Sha256>(&package));
    let packages = format!("{control}Filename: {file_name}\nSize: {size}\nSHA256: {digest}\n\n");
    let release = format!(
        "Suite: stable\nCodename: stable\nArchitectures: all amd64 arm64\nComponents: main\nDate: {}\nSHA256:\n {} {} main/binary-all/Packages\n",
        httpdate::fmt_http_date(std::time::SystemTime::now()).replace("GMT", "UTC"),
        digits::<Sha256>(packages.as_bytes()),
        packages.len(),
    );
    Tree::from([
        (path.to_owned(), package),
        ("debian/dists/stable/main/binary-all/Packages".to_owned(), packages.into_bytes()),
        ("debian/dists/stable/Release".to_owned(), release.into_bytes()),
    ])
}

/// Runs apt-get in its own root.
fn apt_get(root: &Path, source: &str, arguments: &[&str]) {
    for folder in ["etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d"]
        .into_iter()
        .chain(["var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt/archives/partial", "var/log/apt"])
    {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let line = format!("deb [trusted=yes] {source} stable main\n");
    std::fs::write(root.join("etc/apt/sources.list"), line).unwrap();
    // The configuration of the machine could name a proxy.
    let configuration = root.join("apt.conf");
    let text =
        format!("Dir \"{}\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"\";\n", root.display());
    std::fs::write(&configuration, text).unwrap();
    run(Command::new("apt-get")
        .args(["-q", "-o", &format!("Dir={}", root.display()), "-o", "Acquire::Languages=none"])
        .args(["-o", "APT::Sandbox::User=", "-o", "Acquire::http::Proxy=DIRECT", "-o", "Acquire::Retries=0"])
        .args(arguments)
        .env("APT_CONFIG", configuration)
        .current_dir(root));
}

#[test]
fn apt_downloads_through_redirects_and_from_a_list_of_mirrors() {
    if !are_installed(&["nginx", "apt-get", "dpkg-deb"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tree = debian_repository(folder.path());
    let package = tree["debian/pool/main/g/greeting_1.0_all.deb"].clone();
    let repository = Repository::start(tree);
    let sources =
        [repository.url("/debian"), format!("mirror+{}", repository.url("/debian/?mirrorlist=apt"))];
    for source in sources {
        let root = tempfile::tempdir().unwrap();
        apt_get(root.path(), &source, &["update", "--error-on=any"]);
        apt_get(root.path(), &source, &["download", "greeting"]);
        assert!(std::fs::read(root.path().join("greeting_1.0_all.deb")).unwrap() == package, "{source}");
    }
    // A list has several mirrors, so the loss of one does not matter.
    let list = repository.balancer.get("/debian/?mirrorlist=apt").text();
    let first = list.split('\t').next().unwrap();
    let broken = repository.mirrors.iter().find(|(nginx, _)| first.contains(&nginx.authority())).unwrap();
    std::fs::remove_dir_all(broken.1.path().join("debian/pool")).unwrap();
    let source = format!("mirror+{}", repository.url("/debian/?mirrorlist=apt"));
    let root = tempfile::tempdir().unwrap();
    apt_get(root.path(), &source, &["update", "--error-on=any"]);
    apt_get(root.path(), &source, &["download", "greeting"]);
    assert!(std::fs::read(root.path().join("greeting_1.0_all.deb")).unwrap() == package);
}

/// Downloads the metadata of a repository by its Metalink, or by a list of mirrors.
const LIBREPO: &str = "\
import librepo, sys
kind, url, target = sys.argv[1:]
handle = librepo.Handle()
handle.repotype = librepo.LR_YUMREPO
handle.destdir = target
if kind == 'metalink':
    handle.metalinkurl = url
elif kind == 'mirrorlist':
    handle.mirrorlisturl = url
else:
    handle.urls = [url]
handle.perform(librepo.Result())
";

#[test]
fn librepo_downloads_by_metalink_list_and_redirect() {
    let has_librepo = Command::new("python3").args(["-c", "import librepo"]).output();
    if !has_librepo.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: Debian's python3-librepo, the library of dnf, is not installed");
        return;
    }
    if !are_installed(&["nginx"]) {
        return;
    }
    let primary = "<metadata xmlns=\"http://linux.duke.edu/metadata/common\" packages=\"0\"/>\n";
    let digest = digits::<Sha256>(primary.as_bytes());
    let repomd = format!(
        "<repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><revision>1</revision><data type=\"primary\">\
         <checksum type=\"sha256\">{digest}</checksum><location href=\"repodata/primary.xml\"/>\
         <timestamp>1</timestamp><size>{}</size></data></repomd>\n",
        primary.len()
    );
    let repository = Repository::start(Tree::from([
        ("suse/repodata/repomd.xml".to_owned(), repomd.into_bytes()),
        ("suse/repodata/primary.xml".to_owned(), primary.as_bytes().to_vec()),
    ]));
    // Wrong metadata of one mirror is noticed by the digest of the Metalink.
    std::fs::write(repository.mirrors[0].1.path().join("suse/repodata/repomd.xml"), "<wrong/>").unwrap();
    for _ in 0..3 {
        fetch_with_librepo("metalink", &repository.url("/suse/repodata/repomd.xml.metalink"), primary);
    }
    let right = std::fs::read(repository.mirrors[1].1.path().join("suse/repodata/repomd.xml")).unwrap();
    std::fs::write(repository.mirrors[0].1.path().join("suse/repodata/repomd.xml"), right).unwrap();
    fetch_with_librepo("mirrorlist", &repository.url("/suse/?mirrorlist"), primary);
    fetch_with_librepo("url", &repository.url("/suse/"), primary);
}

fn fetch_with_librepo(kind: &str, url: &str, primary: &str) {
    let target = tempfile::tempdir().unwrap();
    run(Command::new("python3").args(["-c", LIBREPO, kind, url]).arg(target.path()));
    assert_eq!(
        std::fs::read_to_string(target.path().join("repodata/primary.xml")).unwrap(),
        primary,
        "{kind}"
    );
}

#[test]
fn zypper_gets_an_array_of_objects_with_urls() {
    if !are_installed(&["nginx"]) {
        return;
    }
    let repository =
        Repository::start(Tree::from([("suse/repodata/repomd.xml".to_owned(), b"<repomd/>".to_vec())]));
    let answer = repository.balancer.get("/suse/?mirrorlist=json");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    // libzypp reads the key `url` of each object, and appends the paths of files to it.
    let list: Vec<Value> = serde_json::from_slice(&answer.body).unwrap();
    let mut urls: Vec<&str> = list.iter().map(|mirror| mirror["url"].as_str().unwrap()).collect();
    urls.sort_unstable();
    let mut expected: Vec<String> =
        repository.mirrors.iter().map(|(nginx, _)| format!("http://{}/suse/", nginx.authority())).collect();
    expected.sort_unstable();
    assert_eq!(urls, expected);
    // A text list must have nothing but URLs.
    let text = repository.balancer.get("/suse?mirrorlist").text();
    assert!(text.lines().all(|line| expected.iter().any(|url| url == line)), "{text}");
}

#[test]
fn a_corrupt_mirror_costs_one_piece() {
    const PIECE: usize = 1 << 20;
    if !are_installed(&["nginx"]) {
        return;
    }
    let file = content(12 * PIECE);
    let tree = |file: &[u8]| {
        Tree::from([
            ("large.iso".to_owned(), file.to_vec()),
            ("files/plshelp.txt".to_owned(), b"probe".to_vec()),
        ])
    };
    let mut wrong = file.clone();
    wrong[5 * PIECE + 7] ^= 1;
    let roots = [folder_of(&tree(&wrong)), folder_of(&tree(&file))];
    let [corrupt, right] = roots.each_ref().map(|root| Nginx::serve(root.path()));
    let folder = tempfile::tempdir().unwrap();
    let catalogue = folder.path().join("catalogue.json");
    let pieces: Vec<String> = file.chunks(PIECE).map(digits::<Sha256>).collect();
    let files = serde_json::json!([{
        "path": "large.iso", "size": file.len(), "sha256": digits::<Sha256>(&file),
        "pieces": { "length": PIECE, "sha256": pieces },
    }]);
    std::fs::write(&catalogue, files.to_string()).unwrap();
    let list = format!("{}\n{}", corrupt.authority(), right.authority());
    let balancer =
        Balancer::start_with(&list, &["--policy", "round-robin", "--catalogue", catalogue.to_str().unwrap()]);
    for server in [&corrupt, &right] {
        balancer.wait_for_state(&server.authority(), "up");
    }
    let metalink = balancer.get("/large.iso.meta4").text();
    assert!(metalink.contains(&format!("<pieces length=\"{PIECE}\" type=\"sha-256\">")), "{metalink}");
    // Round robin makes each server the first one of a download.
    let sent = |server: &Nginx| server.sent("/large.iso");
    for path in ["/large.iso", "/large.iso", "/large.iso.meta4"] {
        let before = sent(&corrupt) + sent(&right);
        let downloads = Downloads::new();
        let url = format!("http://{}{path}", balancer.address());
        downloads.get(&[&url, "-o", "file", "--parallel-time", "60"]).ended_with(0);
        assert!(downloads.read("file") == file, "{path}");
        let sent = sent(&corrupt) + sent(&right) - before;
        assert!(sent < file.len() + 2 * PIECE, "{path}: {sent} bytes were sent");
    }
    assert!(sent(&corrupt) >= file.len(), "the corrupt server was not used");
}
