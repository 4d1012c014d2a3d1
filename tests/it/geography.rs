//! Near servers, rules for clients, and limits.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use super::support::fleet::Balancer;
use super::support::http::{self, Answer};
use super::support::misbehaving::{FileServer, Script};
use super::support::program::{Program, fingerpost};
use super::support::wait_until;

/// A table of networks for documentation.
const TABLE: &str =
    "192.0.2.0/24 country=DE\n198.51.100.0/24 country=US asn=64500\n2001:db8::/32 country=FR\n";
const GERMAN: &str = "192.0.2.7";
const AMERICAN: &str = "198.51.100.7";

/// Servers with attributes, and a balancer for which all of them are up.
struct World {
    authorities: Vec<String>,
    peers: Vec<FileServer>,
    balancer: Balancer,
    folder: TempDir,
    /// The number of requests so far. Each has another path, so that it is not the retry of another.
    requests: AtomicUsize,
}

impl World {
    /// A server for each line of attributes, and this table of networks.
    fn start(attributes: &[&str], keys: &[(&str, &str)]) -> Self {
        Self::start_with(TABLE, attributes, keys)
    }

    fn start_with(table: &str, attributes: &[&str], keys: &[(&str, &str)]) -> Self {
        let peers: Vec<_> = attributes.iter().map(|_| Script::prompt().start()).collect();
        let authorities = peers.iter().map(FileServer::authority).collect();
        Self { peers, ..Self::start_for(authorities, table, attributes, keys) }
    }

    fn start_for(authorities: Vec<String>, table: &str, attributes: &[&str], keys: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("networks");
        std::fs::write(&path, table).unwrap();
        let lines = authorities.iter().zip(attributes).map(|(server, own)| format!("{server} {own}"));
        let mut all = vec![
            ("NETWORKS", path.to_str().unwrap()),
            ("SIZE_LOOKUPS", "false"),
            ("PROBE_INTERVAL", "200ms"),
        ];
        all.extend(keys);
        let balancer = Balancer::start_with_keys(&lines.collect::<Vec<_>>().join("\n"), &all);
        for server in &authorities {
            balancer.wait_for_state(server, "up");
        }
        Self { authorities, peers: Vec::new(), balancer, folder, requests: AtomicUsize::new(0) }
    }

    fn replace(&self, name: &str, content: &[u8]) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    /// The answer to a client with this address behind a proxy of the balancer's machine.
    fn ask(&self, client: &str, target: &str, lines: &str) -> Answer {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n{lines}\r\n");
        http::request(self.balancer.address(), head)
    }

    /// The server of a `Location`, by its place in the list.
    fn server(&self, answer: &Answer) -> usize {
        assert_eq!(answer.status, 301, "{answer:?}");
        let location = answer.location();
        let is_at = |server: &String| location.starts_with(&format!("http://{server}/"));
        self.authorities.iter().position(is_at).unwrap_or_else(|| panic!("{location}"))
    }

    /// The number of redirects of this client to each server.
    fn count(&self, client: &str, requests: usize) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for number in 0..requests {
            // Half of the requests take the path of the service.
            let line = if number % 2 == 0 { "" } else { "Fingerpost-Avoid: 192.0.2.1:1\r\n" };
            let target = format!("/file-{}?query", self.requests.fetch_add(1, Relaxed));
            let answer = self.ask(client, &target, line);
            assert!(answer.location().ends_with(&target));
            *counts.entry(self.server(&answer)).or_default() += 1;
        }
        counts
    }

    fn servers(&self, client: &str) -> Vec<usize> {
        self.count(client, 20).into_keys().collect()
    }

    fn explain(&self, client: &str, target: &str) -> Value {
        let target = target.replace('?', "%3F").replace('=', "%3D");
        let answer = http::get(
            self.balancer.admin_address(),
            &format!("/api/v1/explain?client={client}&path={target}"),
        );
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The explanation for one server.
    fn reason(&self, client: &str, target: &str, server: usize) -> String {
        self.explain(client, target)["backends"][server]["reason"].as_str().unwrap().to_owned()
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo").join(name)
}

#[test]
fn clients_get_a_server_of_their_country() {
    let world = World::start(&["country=DE", "country=US", "country=FR"], &[]);
    assert_eq!(world.servers(GERMAN), [0]);
    assert_eq!(world.servers(AMERICAN), [1]);
    assert_eq!(world.servers("2001:db8::1"), [2]);
    // The place of this client is unknown.
    assert_eq!(world.servers("203.0.113.7"), [0, 1, 2]);
    // Alternates are in the order of distance: the other European server first.
    let answer = world.ask(GERMAN, "/b", "");
    let links: Vec<_> =
        answer.headers.iter().filter(|(name, _)| name == "Link").map(|(_, value)| value).collect();
    assert!(links[0].contains(&world.authorities[2]), "{links:?}");
    assert!(links[1].contains(&world.authorities[1]), "{links:?}");

    let explained = world.explain(GERMAN, "/a");
    assert_eq!(explained["client_place"]["country"], "DE");
    assert_eq!(explained["client_place"]["continent"], "EU");
    let bands: Vec<_> = (0..3).map(|server| explained["backends"][server]["band"].clone()).collect();
    assert_eq!(bands, ["same country", "world", "same continent"]);
}

#[test]
fn a_header_of_an_untrusted_peer_does_not_change_the_place() {
    let world = World::start(&["country=DE", "country=US"], &[("TRUSTED_PROXIES", "")]);
    assert_eq!(world.servers(GERMAN), [0, 1]);
}

#[test]
fn the_query_may_name_a_country_and_servers_to_avoid() {
    let world = World::start(&["country=DE", "country=DE", "country=US"], &[]);
    for number in 0..10 {
        let target = format!("/{number}?country=us&x=1");
        let answer = world.ask(GERMAN, &target, "");
        assert_eq!(answer.location(), format!("http://{}{target}", world.authorities[2]));
        // Only this port is avoided, because all servers have the same host.
        let target = format!("/{number}?x=1&avoid={}", world.authorities[0]);
        assert_eq!(world.server(&world.ask("192.0.2.200", &target, "")), 1);
    }
    assert!(world.server(&world.ask(GERMAN, "/a?country=XX&avoid=nonsense,,", "")) < 2);
}

#[test]
fn a_changed_table_takes_effect_and_a_wrong_one_does_not() {
    let world = World::start(&["country=DE", "country=US"], &[]);
    assert_eq!(world.servers(GERMAN), [0]);
    world.replace("networks", b"192.0.2.0/24 country=US\n");
    wait_until("the new table", || world.server(&world.ask(GERMAN, "/new", "")) == 1);
    world.replace("networks", b"192.0.2.0/24 country=DE\n192.0.3.0/24 country=Germany\n");
    wait_until("the error", || world.balancer.metric("fingerpost_geo_errors_total") == Some(1.0));
    assert_eq!(world.servers(GERMAN), [1]);
    let log = world.balancer.program().stderr();
    assert!(
        log.contains("networks is not usable") && log.contains("line 2: a country is two letters"),
        "{log}"
    );
    world.replace("networks", b"192.0.2.0/25 country=DE\n192.0.2.0/24 country=US # the rest\n");
    wait_until("the corrected table", || world.server(&world.ask(GERMAN, "/corrected", "")) == 0);
    assert_eq!(world.servers("192.0.2.200"), [1]);
}

#[test]
fn databases_give_the_places_of_clients() {
    let folder = tempfile::tempdir().unwrap();
    let (city, asn) = (folder.path().join("city.mmdb"), folder.path().join("asn.mmdb"));
    std::fs::copy(data("GeoLite2-City-Test.mmdb"), &city).unwrap();
    std::fs::copy(data("GeoLite2-ASN-Test.mmdb"), &asn).unwrap();
    let geo = format!("{}\n{}\n", city.display(), asn.display());
    let servers = ["country=SE", "country=US", "country=NO lat=59.9 lon=10.7", "asn=1221"];
    let world = World::start(&servers, &[("GEO", &geo)]);
    assert_eq!(world.servers("89.160.20.128"), [0]);
    assert_eq!(world.servers("216.160.83.57"), [1]);
    assert_eq!(world.servers("1.128.0.5"), [3]);
    let explained = world.explain("89.160.20.128", "/a");
    assert_eq!(explained["client_place"]["country"], "SE");
    assert_eq!(explained["backends"][2]["band"], "within 500 km", "{explained}");
    // Oslo and Linköping.
    let distance = explained["backends"][2]["distance_km"].as_u64().unwrap();
    assert!((300..350).contains(&distance), "{distance}");
    let built = format!("fingerpost_geo_build_timestamp_seconds{{file=\"{}\"}}", city.display());
    assert!(world.balancer.metric(&built).unwrap() > 1.5e9);

    // A damaged file leaves the last good one in use.
    let content = std::fs::read(data("GeoLite2-City-Test.mmdb")).unwrap();
    std::fs::write(&city, &content[..content.len() / 2]).unwrap();
    wait_until("the error", || world.balancer.metric("fingerpost_geo_errors_total") == Some(1.0));
    assert_eq!(world.servers("89.160.20.128"), [0]);
    let log = world.balancer.program().stderr();
    assert!(log.contains("city.mmdb is not a usable database"), "{log}");
}

#[test]
fn a_start_with_an_unusable_file_names_it() {
    let list = tempfile::NamedTempFile::new().unwrap();
    for (flag, name, reason) in [
        ("--geo", data("missing.mmdb"), "cannot read"),
        ("--geo", list.path().to_owned(), "is not a usable database"),
        ("--geo", std::env::temp_dir(), "it is not a file"),
    ] {
        let output = fingerpost()
            .args(["balancer", "--servers", list.path().to_str().unwrap(), flag, name.to_str().unwrap()])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(name.to_str().unwrap()) && error.contains(reason), "{error}");
    }
}

#[test]
fn rules_for_clients_exclude_servers_with_a_reason() {
    let lines = [
        "only=US,AS64501",
        "not=DE,198.51.100.128/25",
        "family=6",
        "https_only",
        "only=continent:EU,192.0.2.0/30",
    ];
    let world = World::start(&lines, &[]);
    assert_eq!(world.servers(GERMAN), [4]);
    assert_eq!(world.servers(AMERICAN), [0, 1]);
    assert_eq!(world.servers("198.51.100.200"), [0]);
    assert_eq!(world.servers("2001:db8::5"), [1, 2, 4]);
    assert_eq!(world.reason(GERMAN, "/", 0), "the client is not among those of only=");
    assert_eq!(world.reason(GERMAN, "/", 1), "the client is among those of not=DE");
    assert_eq!(world.reason(GERMAN, "/", 2), "family=6: the client does not use IPv6");
    assert_eq!(world.reason(GERMAN, "/", 3), "https_only: the client does not use https");
    // `Link` lines name no excluded server.
    let answer = world.ask(GERMAN, "/a", "");
    assert!(answer.header("Link").is_none(), "{answer:?}");
    let answer = world.ask("192.0.2.7", "/b", "X-Forwarded-Proto: https\r\n");
    assert!([3, 4].contains(&world.server(&answer)));

    let world = World::start(&["only=US", "not=DE"], &[]);
    let answer = world.ask(GERMAN, "/a", "");
    assert_eq!(answer.status, 503);
    assert_eq!(world.explain(GERMAN, "/a")["status"], 503);
}

#[test]
fn a_lone_server_without_load_reports_gets_a_limited_share() {
    for policy in ["random", "adaptive"] {
        let world = World::start(
            &["country=DE", "country=FR", "country=FR", "country=US"],
            &[("SPILL_FACTOR", "1"), ("POLICY", policy)],
        );
        let counts = world.count(GERMAN, 200);
        // A quarter and the burst; the others go to the same continent.
        assert!((20..=90).contains(&counts[&0]), "{policy}: {counts:?}");
        assert!(counts[&1] + counts[&2] >= 80, "{policy}: {counts:?}");
    }
}

#[test]
fn a_client_goes_farther_if_the_near_server_is_down() {
    let world = World::start(&["country=DE", "country=FR", "country=US"], &[]);
    assert_eq!(world.servers(GERMAN), [0]);
    world.peers[0].kill();
    world.balancer.wait_for_state(&world.authorities[0], "down");
    assert_eq!(world.servers(GERMAN), [1]);
}

#[test]
fn a_server_gets_at_most_its_redirects_per_second() {
    let world = World::start_with("", &["max_redirects=5 weight=1000", ""], &[]);
    let start = Instant::now();
    let counts = world.count(GERMAN, 100);
    let seconds = start.elapsed().as_secs() as usize + 1;
    assert!(counts[&0] <= 5 * seconds, "{counts:?} in {seconds} s");
    assert!(counts[&0] >= 5, "{counts:?}");
    wait_until("the reason", || {
        world.count(GERMAN, 10);
        world.reason(GERMAN, "/", 0) == "max_redirects=5: it has got them in this second"
    });
}

#[test]
fn sizes_months_and_hours_limit_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    write("root/plshelp.txt", b"probe");
    write("root/small", &[1; 1000]);
    write("root/large", &vec![1; 100_000]);
    let json = br#"[{"path": "small", "size": 1000}, {"path": "large", "size": 100000}]"#;
    let catalogue = write("catalogue.json", json);
    let root = folder.path().join("root");
    let server = |_| {
        Program::start(["server", "--host", "127.0.0.1", "--workers", "1", "--root", root.to_str().unwrap()])
    };
    let servers: Vec<Program> = (0..4).map(server).collect();
    let authorities = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    // Neither this hour nor the next one.
    let hours = format!("hours={}-{hour}", (hour + 2) % 24);
    let lines =
        ["max_file_size=1kB weight=1000", "min_file_size=1001 monthly_bytes=150kB weight=1000", "", &hours];
    let keys = [("CATALOGUE", catalogue.as_str()), ("SPILL_FACTOR", "1000")];
    let world = World::start_for(authorities, "", &lines, &keys);
    let ask = |path: &str, number: usize| world.server(&world.ask(GERMAN, &format!("{path}?{number}"), ""));
    let small: HashSet<_> = (0..20).map(|number| ask("/small", number)).collect();
    assert!(small.is_subset(&HashSet::from([0, 2])), "{small:?}");
    assert_eq!(world.reason(GERMAN, "/large", 0), "max_file_size=1000: the file has 100000 bytes");
    assert_eq!(world.reason(GERMAN, "/small", 1), "min_file_size=1001: the file has 1000 bytes");
    assert_eq!(world.reason(GERMAN, "/small", 3), "it is not the time of its hours=");
    wait_until("the bytes of the month", || {
        ask("/large", world.requests.fetch_add(1, Relaxed));
        world.reason(GERMAN, "/large", 1) == "monthly_bytes=150000: it has got them in this month"
    });
    wait_until("the limit to be in force", || (100..120).all(|number| ask("/large", number) == 2));
}

#[test]
fn a_server_that_failed_for_one_client_is_avoided_by_its_network() {
    let world = World::start_with("", &["", ""], &[]);
    // The servers must have been up for more than four seconds before the failure.
    wait_until("the failure to count", || {
        let failed = format!("Fingerpost-Avoid: {}\r\n", world.authorities[0]);
        world.ask(GERMAN, "/a", &failed);
        world.servers("192.0.2.99") == [1]
    });
    assert_eq!(world.servers("192.0.3.99"), [0, 1]);
    let reason = world.reason("192.0.2.99", "/", 0);
    assert!(reason.starts_with("up, but not for this client"), "{reason}");
    // Without another server, it is used.
    world.peers[1].kill();
    world.balancer.wait_for_state(&world.authorities[1], "down");
    assert_eq!(world.servers(GERMAN), [0]);
}
