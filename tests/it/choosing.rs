//! The choice of a server, apart from the health of the servers.

use std::collections::HashSet;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::support::fleet::Balancer;
use super::support::http::{self, Answer};
use super::support::misbehaving::{FileServer, Script};
use super::support::wait_until;

/// Servers, and a balancer for which all of them are up.
struct Servers {
    peers: Vec<FileServer>,
    balancer: Balancer,
}

impl Servers {
    fn start(scripts: Vec<Script>, keys: &[(&str, &str)]) -> Self {
        let peers: Vec<_> = scripts.into_iter().map(Script::start).collect();
        let lines: Vec<_> = peers.iter().map(FileServer::authority).collect();
        let balancer = Balancer::start_with_keys(&lines.join("\n"), keys);
        for peer in &peers {
            balancer.wait_for_state(&peer.authority(), "up");
        }
        Self { peers, balancer }
    }

    fn prompt(count: usize, keys: &[(&str, &str)]) -> Self {
        Self::start(vec![Script::prompt(); count], keys)
    }

    fn location(&self, peer: usize, target: &str) -> String {
        format!("http://{}{target}", self.peers[peer].authority())
    }

    /// The answer to a request that names these servers as failed.
    fn avoiding(&self, names: &[String]) -> Answer {
        let names = names.join(", ");
        let head = format!("GET /x HTTP/1.1\r\nHost: x\r\nFingerpost-Avoid: {names}\r\n\r\n");
        http::request(self.balancer.address(), head)
    }
}

/// The addresses in the `Link` lines. Each line must have the form of RFC 6249 and one address, in the order of priority.
fn duplicates(answer: &Answer) -> Vec<String> {
    let links = answer.headers.iter().filter(|(name, _)| name == "Link").map(|(_, value)| value);
    let link = |(priority, link): (usize, &String)| {
        let end = format!(">; rel=duplicate; pri={priority}");
        link.strip_prefix('<').and_then(|link| link.strip_suffix(&end)).expect(link).to_owned()
    };
    (1..).zip(links).map(link).collect()
}

/// The answers on the fast path, and on the path of the service, to which a header leads.
fn on_both_paths(setup: &Servers, target: &str) -> [Answer; 2] {
    ["", "Fingerpost-Avoid: 192.0.2.1:1\r\n"].map(|line| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n");
        http::request(setup.balancer.address(), head)
    })
}

#[test]
fn a_redirect_names_the_configured_number_of_other_servers() {
    for (alternates, named) in [("0", 0), ("1", 1), ("3", 3)] {
        let setup = Servers::prompt(5, &[("ALTERNATES", alternates)]);
        let known: HashSet<_> = (0..5).map(|peer| setup.location(peer, "/a%20b?c=d")).collect();
        for answer in (0..10).flat_map(|_| on_both_paths(&setup, "/a%20b?c=d")) {
            let mut urls = duplicates(&answer);
            assert_eq!(urls.len(), named, "{answer:?}");
            urls.push(answer.location().to_owned());
            let different: HashSet<_> = urls.iter().cloned().collect();
            assert_eq!(different.len(), urls.len(), "{answer:?}");
            assert!(different.is_subset(&known), "{answer:?}");
        }
    }
}

#[test]
fn the_redirect_of_a_long_target_names_no_other_server() {
    let setup = Servers::prompt(3, &[]);
    for (length, named) in [(512, 2), (513, 0), (4000, 0)] {
        for answer in on_both_paths(&setup, &format!("/f?{}", "a".repeat(length - 3))) {
            assert_eq!((answer.status, duplicates(&answer).len()), (301, named), "{length}");
        }
    }
}

#[test]
fn a_server_that_the_client_reports_as_failed_is_avoided_while_another_is_usable() {
    let setup = Servers::prompt(3, &[]);
    let names: Vec<_> = setup.peers.iter().map(FileServer::authority).collect();
    for _ in 0..20 {
        let answer = setup.avoiding(&names[..2]);
        assert_eq!(answer.location(), setup.location(2, "/x"));
        assert_eq!(duplicates(&answer), [""; 0], "{answer:?}");
    }
    // If all servers failed, the client is still redirected to one of them.
    assert_eq!(setup.avoiding(&names).status, 301);
}

#[test]
fn a_client_that_requests_a_file_again_is_sent_to_another_server_unless_second_chance_is_off() {
    let moved = |key: &str, edits_list: bool| {
        let setup = Servers::prompt(2, &[("SECOND_CHANCE", key), ("POLICY", "random")]);
        let targets: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
        let ask = || targets.iter().map(|target| setup.balancer.get(target)).collect::<Vec<_>>();
        let before = ask();
        if edits_list {
            // The servers exchange their places.
            let names: Vec<_> = setup.peers.iter().map(FileServer::authority).rev().collect();
            setup.balancer.replace_list(&names.join("\n"));
            setup.balancer.wait_for_backends(&names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        // A repetition counts as a retry only after one second, and the binary uses the real clock.
        thread::sleep(Duration::from_millis(1_300));
        before.iter().zip(ask()).filter(|(before, after)| before.location() != after.location()).count()
    };
    assert_eq!(moved("true", false), 20);
    assert_eq!(moved("true", true), 20);
    // Without the rule, half of the requests change by chance, and all of them with a probability of one in a million.
    assert!(moved("false", false) < 20);
}

#[test]
fn a_get_is_sent_to_the_server_of_the_head_before_it_and_names_other_servers() {
    for second_chance in ["true", "false"] {
        let setup = Servers::prompt(4, &[("SECOND_CHANCE", second_chance), ("POLICY", "random")]);
        let targets: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
        let ask = |method: &str| {
            let head = |target: &String| format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            targets
                .iter()
                .map(|target| http::request(setup.balancer.address(), head(target)))
                .collect::<Vec<_>>()
        };
        let before = ask("HEAD");
        for (head, get) in before.iter().zip(ask("GET")) {
            assert_eq!(head.location(), get.location(), "{second_chance}");
            let others = duplicates(&get);
            assert!(others.len() == 3 && !others.iter().any(|url| url == get.location()), "{get:?}");
        }
        let counted: f64 = setup
            .peers
            .iter()
            .map(|peer| {
                let name = format!("fingerpost_redirects_total{{backend=\"http://{}\"}}", peer.authority());
                setup.balancer.metric(&name).unwrap()
            })
            .sum();
        assert_eq!(counted as u64, 40);
    }
}

#[test]
fn invalid_values_of_load_reports_are_counted_and_do_not_change_the_share_of_clients() {
    let reporting = |metrics: &str| {
        Script::prompt().header(format!("endpoint-load-metrics: JSON {{\"named_metrics\":{{{metrics}}}}}"))
    };
    let scripts = vec![
        reporting("\"in_flight\":1e18"),
        reporting("\"in_flight\":1,\"sent_bytes\":-5"),
        reporting("\"in_flight\":NaN"),
    ];
    let setup = Servers::start(scripts, &[("POLICY", "two-choices")]);
    assert!(setup.balancer.metric("fingerpost_load_report_values_clamped_total").unwrap() >= 1.0);
    assert!(setup.balancer.metric("fingerpost_load_reports_unreadable_total").unwrap() >= 2.0);
    assert_eq!(setup.balancer.redirects(200).authorities().len(), 3);
}

#[test]
fn a_server_that_reports_overload_gets_no_client_while_another_is_free() {
    let reporting = |in_flight: u32| {
        let metrics = format!("{{\"named_metrics\":{{\"in_flight\":{in_flight}}}}}");
        Script::prompt().header(format!("endpoint-load-metrics: JSON {metrics}"))
    };
    let setup = Servers::start(vec![reporting(1_000_000), reporting(1)], &[]);
    assert_eq!(setup.balancer.redirects(200).authorities(), [setup.peers[1].authority()]);
}

#[test]
fn a_load_report_that_does_not_change_although_clients_are_sent_is_ignored_and_displayed() {
    let reporting = |completed: u32| {
        let metrics = format!("{{\"named_metrics\":{{\"in_flight\":1,\"completed\":{completed}}}}}");
        Script::prompt().header(format!("endpoint-load-metrics: JSON {metrics}"))
    };
    let setup = Servers::start(vec![reporting(7), Script::prompt()], &[("PROBE_INTERVAL", "100ms")]);
    let stale_reports_are = |count: f64| {
        setup.balancer.redirects(100);
        setup.balancer.metric("fingerpost_load_reports_stuck") == Some(count)
    };
    let shown = |peer: usize| {
        let address = format!("http://{}", setup.peers[peer].authority());
        let backend = setup.balancer.backends().into_iter().find(|backend| backend["address"] == address);
        backend.unwrap()["load_report"].as_str().unwrap().to_owned()
    };
    wait_until("the report to be ignored", || stale_reports_are(1.0));
    assert_eq!([0, 1].map(shown), ["ignored: it stays the same although clients are sent", "none"]);
    let mut completed = 7;
    wait_until("the report to be used again", || {
        completed += 1;
        setup.peers[0].becomes(reporting(completed));
        stale_reports_are(0.0)
    });
}

/// Servers with these attributes in the list, and a balancer for which all of them are up.
fn with_attributes(attributes: &[&str], keys: &[(&str, &str)]) -> Servers {
    let peers: Vec<_> = attributes.iter().map(|_| Script::prompt().start()).collect();
    let lines: Vec<_> = peers
        .iter()
        .zip(attributes)
        .map(|(peer, attributes)| format!("{} {attributes}", peer.authority()))
        .collect();
    let balancer = Balancer::start_with_keys(&lines.join("\n"), keys);
    for peer in &peers {
        balancer.wait_for_state(&peer.authority(), "up");
    }
    Servers { peers, balancer }
}

#[test]
fn a_lower_tier_takes_all_traffic_while_it_is_usable() {
    let setup = with_attributes(&["tier=1", "tier=0"], &[("PROBE_INTERVAL", "200ms")]);
    let [spare, first] = [0, 1].map(|peer: usize| setup.peers[peer].authority());
    wait_until("the first tier alone to be used", || setup.balancer.redirects(20).to(&first) == 20);
    assert_eq!(setup.balancer.redirects(200).authorities(), [&first]);
    setup.peers[1].becomes(Script::status(500));
    setup.balancer.wait_for_state(&first, "down");
    wait_until("the other tier to be used", || setup.balancer.redirects(1).to(&spare) == 1);
    assert_eq!(setup.balancer.redirects(200).authorities(), [&spare]);
}

#[test]
fn weights_are_shares() {
    let setup = with_attributes(&["weight=5", "weight=3", "weight=1", ""], &[("POLICY", "round-robin")]);
    wait_until("all to be used", || setup.balancer.redirects(20).authorities().len() == 4);
    let redirects = setup.balancer.redirects(1000);
    for (peer, share) in setup.peers.iter().zip([500_usize, 300, 100, 100]) {
        assert!(redirects.to(&peer.authority()).abs_diff(share) <= 10, "{redirects:?}");
    }
}

#[test]
fn hash_keeps_a_path_on_its_server() {
    let setup = with_attributes(&["", "", ""], &[("POLICY", "hash")]);
    // So few paths that no server is overloaded by its own paths.
    let targets = ["/a", "/b", "/c", "/d"];
    let ask = || targets.map(|target| setup.balancer.get(target).location().to_owned());
    assert_eq!(ask(), ask());
}

/// A server that listens and never accepts, so that probes have no outcome until they time out.
fn silent(address: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind(address).unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    (listener, authority)
}

#[test]
fn clients_are_sent_to_servers_of_their_scheme_and_address_family_as_trusted_proxies_report_them() {
    let [http, https, http_v6] = [silent("127.0.0.1:0"), silent("127.0.0.1:0"), silent("[::1]:0")];
    let (a, b, c) =
        (format!("http://{}", http.1), format!("https://{}", https.1), format!("http://{}", http_v6.1));
    let to = |trusted: &str, list: &[&str], lines: &str| {
        let keys = [
            ("TRUSTED_PROXIES", trusted),
            ("PROBE_INTERVAL", "120s"),
            ("PROBE_TIMEOUT", "60s"),
            ("POLICY", "random"),
        ];
        let balancer = Balancer::start_with_keys(&list.join("\n"), &keys);
        let mut found = [HashSet::new(), HashSet::new()];
        for number in 0..40 {
            for (found, way) in found.iter_mut().zip(["", "Fingerpost-Avoid: 192.0.2.1:1\r\n"]) {
                let head = format!("GET /{number} HTTP/1.1\r\nHost: x\r\n{lines}{way}\r\n");
                let answer = http::request(balancer.address(), head);
                found.insert(answer.location().rsplit_once('/').unwrap().0.to_owned());
            }
        }
        let [fast, long] = found;
        assert_eq!(fast, long, "{lines}");
        let mut found: Vec<String> = fast.into_iter().collect();
        found.sort();
        found
    };
    let sorted = |mut list: Vec<&String>| {
        list.sort();
        list.into_iter().cloned().collect::<Vec<_>>()
    };
    let all = [a.as_str(), &b, &c];
    let (v6, secure) = ("X-Forwarded-For: 2001:db8::1\r\n", "X-Forwarded-Proto: https\r\n");
    let both = format!("{v6}{secure}");
    let loopback = "127.0.0.0/8";
    // The connections of this test use IPv4.
    assert_eq!(to(loopback, &all, ""), sorted(vec![&a, &b]));
    assert_eq!(to(loopback, &all, secure), [b.as_str()]);
    assert_eq!(to(loopback, &all, v6), sorted(vec![&a, &b, &c]));
    assert_eq!(to(loopback, &all, &both), [b.as_str()]);
    // No other server is usable.
    assert_eq!(to(loopback, &[&c], secure), [c.as_str()]);
    assert_eq!(to(loopback, &[&b, &c], ""), [b.as_str()]);
    // No proxy is trusted.
    assert_eq!(to("", &all, &both), sorted(vec![&a, &b]));
}
