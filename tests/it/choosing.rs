//! What decides where a client is sent, besides the health of the servers.

use std::collections::HashSet;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::support::fleet::Balancer;
use super::support::http::{self, Answer};
use super::support::peer::{Behaviour, Peer};
use super::support::wait_until;

/// So many servers, and a balancer that has found them up.
struct Servers {
    peers: Vec<Peer>,
    balancer: Balancer,
}

impl Servers {
    fn start(behaviours: &[Behaviour], keys: &[(&str, &str)]) -> Self {
        let peers: Vec<_> = behaviours.iter().cloned().map(Peer::start).collect();
        let lines: Vec<_> = peers.iter().map(Peer::authority).collect();
        let balancer = Balancer::start_with_keys(&lines.join("\n"), keys);
        for peer in &peers {
            balancer.wait_for_state(&peer.authority(), "up");
        }
        Self { peers, balancer }
    }

    fn prompt(count: usize, keys: &[(&str, &str)]) -> Self {
        Self::start(&vec![Behaviour::Prompt; count], keys)
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

/// The addresses in the `Link` lines, one each, which must be in the form of RFC 6249 and in the order of their priority.
fn duplicates(answer: &Answer) -> Vec<String> {
    let links = answer.headers.iter().filter(|(name, _)| name == "Link").map(|(_, value)| value);
    let link = |(priority, link): (usize, &String)| {
        let end = format!(">; rel=duplicate; pri={priority}");
        link.strip_prefix('<').and_then(|link| link.strip_suffix(&end)).expect(link).to_owned()
    };
    (1..).zip(links).map(link).collect()
}

/// The request on the fast path, and with a header that keeps it from there.
fn on_both_paths(story: &Servers, target: &str) -> [Answer; 2] {
    ["", "Fingerpost-Avoid: 192.0.2.1:1\r\n"].map(|line| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n");
        http::request(story.balancer.address(), head)
    })
}

#[test]
fn a_redirect_names_as_many_other_servers_as_it_is_told_to() {
    for (alternates, named) in [("0", 0), ("1", 1), ("3", 3)] {
        let story = Servers::prompt(5, &[("ALTERNATES", alternates)]);
        let known: HashSet<_> = (0..5).map(|peer| story.location(peer, "/a%20b?c=d")).collect();
        for answer in (0..10).flat_map(|_| on_both_paths(&story, "/a%20b?c=d")) {
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
    let story = Servers::prompt(3, &[]);
    for (length, named) in [(512, 2), (513, 0), (4000, 0)] {
        for answer in on_both_paths(&story, &format!("/f?{}", "a".repeat(length - 3))) {
            assert_eq!((answer.status, duplicates(&answer).len()), (301, named), "{length}");
        }
    }
}

#[test]
fn a_server_that_the_client_says_has_failed_is_left_out_while_there_is_another() {
    let story = Servers::prompt(3, &[]);
    let names: Vec<_> = story.peers.iter().map(Peer::authority).collect();
    for _ in 0..20 {
        let answer = story.avoiding(&names[..2]);
        assert_eq!(answer.location(), story.location(2, "/x"));
        assert_eq!(duplicates(&answer), [""; 0], "{answer:?}");
    }
    // Where all have failed it, one of them is still the best there is.
    assert_eq!(story.avoiding(&names).status, 301);
}

#[test]
fn who_comes_back_for_the_same_file_is_sent_elsewhere_unless_that_is_switched_off() {
    let moved = |key: &str| {
        let story = Servers::prompt(2, &[("SECOND_CHANCE", key), ("POLICY", "random")]);
        let targets: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
        let ask = || targets.iter().map(|target| story.balancer.get(target)).collect::<Vec<_>>();
        let before = ask();
        // Sooner it is no retry: the rule is about real time.
        thread::sleep(Duration::from_millis(1_300));
        before.iter().zip(ask()).filter(|(before, after)| before.location() != after.location()).count()
    };
    assert_eq!(moved("true"), 20);
    // Half of them by chance: all with a probability of one in a million.
    assert!(moved("false") < 20);
}

#[test]
fn a_get_goes_where_the_head_before_it_went_and_names_other_servers() {
    for second_chance in ["true", "false"] {
        let story = Servers::prompt(4, &[("SECOND_CHANCE", second_chance), ("POLICY", "random")]);
        let targets: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
        let ask = |method: &str| {
            let head = |target: &String| format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            targets
                .iter()
                .map(|target| http::request(story.balancer.address(), head(target)))
                .collect::<Vec<_>>()
        };
        let before = ask("HEAD");
        for (head, get) in before.iter().zip(ask("GET")) {
            assert_eq!(head.location(), get.location(), "{second_chance}");
            let others = duplicates(&get);
            assert!(others.len() == 3 && !others.iter().any(|url| url == get.location()), "{get:?}");
        }
        let counted: f64 = story
            .peers
            .iter()
            .map(|peer| {
                let name = format!("fingerpost_redirects_total{{backend=\"http://{}\"}}", peer.authority());
                story.balancer.metric(&name).unwrap()
            })
            .sum();
        assert_eq!(counted as u64, 40);
    }
}

#[test]
fn what_cannot_be_true_in_a_load_report_is_counted_and_takes_clients_from_nobody() {
    let says = |metrics: &str| {
        Behaviour::WithHeader(format!("endpoint-load-metrics: JSON {{\"named_metrics\":{{{metrics}}}}}"))
    };
    let behaviours =
        [says("\"in_flight\":1e18"), says("\"in_flight\":1,\"sent_bytes\":-5"), says("\"in_flight\":NaN")];
    let story = Servers::start(&behaviours, &[("POLICY", "two-choices")]);
    assert!(story.balancer.metric("fingerpost_load_report_values_clamped_total").unwrap() >= 1.0);
    assert!(story.balancer.metric("fingerpost_load_reports_unreadable_total").unwrap() >= 2.0);
    assert_eq!(story.balancer.redirects(200).authorities().len(), 3);
}

#[test]
fn a_server_that_says_that_it_is_swamped_gets_no_client_while_another_is_free() {
    let says = |in_flight: u32| {
        let metrics = format!("{{\"named_metrics\":{{\"in_flight\":{in_flight}}}}}");
        Behaviour::WithHeader(format!("endpoint-load-metrics: JSON {metrics}"))
    };
    let story = Servers::start(&[says(1_000_000), says(1)], &[]);
    assert_eq!(story.balancer.redirects(200).authorities(), [story.peers[1].authority()]);
}

#[test]
fn a_load_report_that_does_not_change_though_clients_are_sent_is_left_out_and_shown() {
    let says = |completed: u32| {
        let metrics = format!("{{\"named_metrics\":{{\"in_flight\":1,\"completed\":{completed}}}}}");
        Behaviour::WithHeader(format!("endpoint-load-metrics: JSON {metrics}"))
    };
    let story = Servers::start(&[says(7), Behaviour::Prompt], &[("PROBE_INTERVAL", "100ms")]);
    let says_of = |count: f64| {
        story.balancer.redirects(100);
        story.balancer.metric("fingerpost_load_reports_stuck") == Some(count)
    };
    let shown = |peer: usize| {
        let address = format!("http://{}", story.peers[peer].authority());
        let backend = story.balancer.backends().into_iter().find(|backend| backend["address"] == address);
        backend.unwrap()["load_report"].as_str().unwrap().to_owned()
    };
    wait_until("the report to be ignored", || says_of(1.0));
    assert_eq!([0, 1].map(shown), ["ignored: it stays the same although clients are sent", "none"]);
    let mut completed = 7;
    wait_until("the report to be used again", || {
        completed += 1;
        story.peers[0].behave(says(completed));
        says_of(0.0)
    });
}

/// Servers with these attributes in the list, and a balancer that has found them up.
fn with_attributes(attributes: &[&str], keys: &[(&str, &str)]) -> Servers {
    let peers: Vec<_> = attributes.iter().map(|_| Peer::start(Behaviour::Prompt)).collect();
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
    let story = with_attributes(&["tier=1", "tier=0"], &[("PROBE_INTERVAL", "200ms")]);
    let [spare, first] = [0, 1].map(|peer: usize| story.peers[peer].authority());
    wait_until("the first tier alone to be used", || story.balancer.redirects(20).to(&first) == 20);
    assert_eq!(story.balancer.redirects(200).authorities(), [&first]);
    story.peers[1].behave(Behaviour::Status(500));
    story.balancer.wait_for_state(&first, "down");
    wait_until("the other tier to be used", || story.balancer.redirects(1).to(&spare) == 1);
    assert_eq!(story.balancer.redirects(200).authorities(), [&spare]);
}

#[test]
fn weights_are_shares() {
    let story = with_attributes(&["weight=5", "weight=3", "weight=1", ""], &[("POLICY", "round-robin")]);
    wait_until("all to be used", || story.balancer.redirects(20).authorities().len() == 4);
    let redirects = story.balancer.redirects(1000);
    for (peer, share) in story.peers.iter().zip([500_usize, 300, 100, 100]) {
        assert!(redirects.to(&peer.authority()).abs_diff(share) <= 10, "{redirects:?}");
    }
}

#[test]
fn hash_keeps_a_path_on_its_server() {
    let story = with_attributes(&["", "", ""], &[("POLICY", "hash")]);
    // Few enough that no server has more outstanding than its paths may always have.
    let targets = ["/a", "/b", "/c", "/d"];
    let ask = || targets.map(|target| story.balancer.get(target).location().to_owned());
    assert_eq!(ask(), ask());
}

/// Listens and never accepts, so that probes find neither success nor failure until they time out.
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
    // These connections are IPv4.
    assert_eq!(to(loopback, &all, ""), sorted(vec![&a, &b]));
    assert_eq!(to(loopback, &all, secure), [b.as_str()]);
    assert_eq!(to(loopback, &all, v6), sorted(vec![&a, &b, &c]));
    assert_eq!(to(loopback, &all, &both), [b.as_str()]);
    // Nothing else is usable.
    assert_eq!(to(loopback, &[&c], secure), [c.as_str()]);
    assert_eq!(to(loopback, &[&b, &c], ""), [b.as_str()]);
    // No proxy is trusted.
    assert_eq!(to("", &all, &both), sorted(vec![&a, &b]));
}
