//! State that survives a restart, explanations and history.

use std::time::Instant;

use super::support::http;
use super::support::misbehaving::Script;
use super::support::operated::Operated;
use super::support::wait_until;

/// A valid file of format 9.
const NEWER: &str =
    "fingerpost state.json 9 6ec91b52984eff7ef1e0986e39fec3d306876795c9f16c124a0f689655dfd3fd\n{}";

#[test]
fn after_kill_9_the_balancer_redirects_at_once_as_before() {
    let mut balancer = Operated::start_with([Script::prompt(), Script::status(500)], &[]);
    let [up, down] = [0, 1].map(|peer| balancer.name(peer));
    wait_until("one server to be up and one down", || {
        let backends = balancer.backends();
        backends[0]["state"] == "up" && backends[1]["state"] == "down"
    });
    assert_eq!(balancer.targets(), [up.as_str()]);
    // A change of health is stored within seconds, with the redirects so far.
    wait_until("the stored state", || {
        std::fs::read_to_string(balancer.state("state.json"))
            .is_ok_and(|text| text.contains("\"down\"") && text.contains("\"redirects\":40"))
    });
    balancer.program.kill();
    for peer in &balancer.peers {
        peer.becomes(Script::prompt().hangs());
    }
    // The first probes take a second.
    "10s".clone_into(&mut balancer.flags[1]);
    balancer.restart();
    assert_eq!(http::get(balancer.admin(), "/readyz").status, 200);
    assert_eq!(balancer.targets(), [up.as_str()]);
    let backends = balancer.backends();
    assert_eq!(backends[0]["redirects"], 80);
    let reason = backends[1]["reason"].as_str().unwrap();
    assert!(reason.starts_with("not probed since the restart; before: answered with status 500"), "{reason}");
    // Probes then correct the memory.
    balancer.peers[1].becomes(Script::prompt());
    "200ms".clone_into(&mut balancer.flags[1]);
    balancer.program.kill();
    balancer.restart();
    wait_until("the other server", || balancer.targets() == [down.as_str()]);
}

#[test]
fn a_damaged_or_newer_state_is_moved_aside_and_does_not_prevent_the_start() {
    let mut balancer = Operated::start(&[]);
    for (text, words) in [
        ("garbage", "its first line is not the one"),
        ("fingerpost state.json 1 0\n{}", "its checksum is wrong"),
        (NEWER, "another version of fingerpost wrote it (format 9)"),
    ] {
        balancer.program.kill();
        std::fs::write(balancer.state("state.json"), text).unwrap();
        balancer.restart();
        balancer.program.wait_for_stderr("a state file is not usable and was moved aside");
        balancer.program.wait_for_stderr(words);
        assert_eq!(std::fs::read_to_string(balancer.state("state.json.damaged")).unwrap(), text);
        balancer.wait_until_up();
        assert_eq!(balancer.targets().len(), 2);
        assert_eq!(balancer.metric("fingerpost_orders_lost"), Some(0.0));
    }
}

#[test]
fn a_stop_stores_the_state() {
    let mut balancer = Operated::start(&[]);
    balancer.targets();
    balancer.program.signal(rustix::process::Signal::TERM);
    assert!(balancer.program.wait().success());
    balancer.restart();
    let redirects: u64 =
        balancer.backends().iter().map(|backend| backend["redirects"].as_u64().unwrap()).sum();
    assert_eq!(redirects, 40);
}

#[test]
fn an_explanation_names_every_reason_and_changes_nothing() {
    let mut balancer = Operated::start_with([Script::prompt(), Script::status(500)], &[]);
    let [up, down] = [0, 1].map(|peer| format!("http://{}", balancer.name(peer)));
    wait_until("one server to be down", || balancer.backends()[1]["state"] == "down");
    let explain = |balancer: &Operated, query: &str| -> serde_json::Value {
        let answer = http::get(balancer.admin(), &format!("/api/v1/explain?{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    };
    for _ in 0..50 {
        let explained =
            explain(&balancer, "path=/a%20b%3Fc&client=192.0.2.7".replace("%20", "%2520").as_str());
        assert_eq!((&explained["path"], &explained["status"]), (&"/a%20b?c".into(), &301.into()));
        assert_eq!(explained["choice"]["backend"], up);
        assert_eq!(explained["backends"][1]["candidate"], false);
        let reason = explained["backends"][1]["reason"].as_str().unwrap();
        assert!(reason.starts_with("down: answered with status 500"), "{reason}");
    }
    assert_eq!(balancer.metric(&format!("fingerpost_redirects_total{{backend=\"{up}\"}}")), Some(0.0));
    assert_eq!(balancer.metric("fingerpost_answers_total{status=\"301\"}"), Some(0.0));
    balancer.succeed(&["drain", &balancer.name(0), "--note", "new disk"]);
    let explained = explain(&balancer, "path=/x");
    assert_eq!((&explained["status"], &explained["choice"]), (&503.into(), &serde_json::Value::Null));
    assert_eq!(explained["backends"][0]["reason"], "order: drain: new disk");
    let text = balancer.succeed(&["explain", "http://lb.example/x?y", "--client", "::1"]);
    assert!(
        text.starts_with("/x?y: 503\n") && text.contains(&format!("- {up}  order: drain: new disk")),
        "{text}"
    );
    assert!(text.contains(&format!("- {down}  down: answered with status 500")), "{text}");
    for query in
        ["", "path=x", "path=//x", "path=/../x", "path=/x&client=y", "path=/x&scheme=ftp", "path=/x&z=1"]
    {
        let answer = http::get(balancer.admin(), &format!("/api/v1/explain?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{query}");
    }
    balancer.program.kill();
}

#[test]
fn a_repeated_request_is_explained() {
    let balancer = Operated::start(&[]);
    let first = http::get(balancer.program.address(), "/x").location().to_owned();
    let start = Instant::now();
    let path = "/api/v1/explain?path=/x&client=127.0.0.1";
    wait_until("the choice of a repeated request", || {
        let explained: serde_json::Value =
            serde_json::from_slice(&http::get(balancer.admin(), path).body).unwrap();
        assert!(start.elapsed().as_secs() < 50);
        explained["choice"]["reason"].as_str().unwrap().contains("requests the file again")
            && !first.starts_with(explained["choice"]["backend"].as_str().unwrap())
    });
}

#[test]
fn the_history_has_each_change_with_its_cause_and_survives_kill_9() {
    let mut balancer = Operated::start(&[]);
    balancer.peers[1].becomes(Script::status(503));
    wait_until("one server to be down", || balancer.backends()[1]["state"] == "down");
    balancer.succeed(&["drain", &balancer.name(0), "--note", "new disk"]);
    let check = |balancer: &Operated| {
        let text = balancer.succeed(&["events"]);
        let lines: Vec<_> = text.lines().collect();
        let find = |words: &[&str]| {
            let found = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found, "{words:?}: {text}");
        };
        find(&[&balancer.name(0), "unknown -> up", "answers"]);
        find(&[&balancer.name(1), "suspect -> down", "answered with status 503", "3 times in a row"]);
        find(&[&balancer.name(0), "order: drain: new disk", "by 127.0.0.1 without a token"]);
        let own = balancer.succeed(&["events", &balancer.name(1), "--json"]);
        let own: serde_json::Value = serde_json::from_str(&own).unwrap();
        let events = own["events"].as_array().unwrap();
        assert!(events.iter().all(|event| event["backend"] == format!("http://{}", balancer.name(1))));
        assert_eq!((&events[0]["kind"], &events[0]["to"]), (&"state".into(), &"down".into()));
        assert_eq!(own["availability"].as_array().map(Vec::len), Some(1));
    };
    wait_until("the stored history", || {
        std::fs::read_to_string(balancer.state("state.json"))
            .is_ok_and(|text| text.contains("\"to\":\"down\"") && text.contains("new disk"))
    });
    check(&balancer);
    balancer.program.kill();
    balancer.restart();
    check(&balancer);
}

#[test]
fn the_access_log_has_each_answer_with_the_server_and_the_reason() {
    let balancer = Operated::start(&["--access-log", "access.log"]);
    let path = balancer.folder.path().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let location = http::get(balancer.program.address(), "/a%20b?c").location().to_owned();
    let backend = location.strip_suffix("/a%20b?c").unwrap().to_owned();
    http::get(balancer.program.address(), "/../x");
    http::request(balancer.program.address(), "garbage\r\n\r\n");
    let forwarded = "GET /y HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    http::request(balancer.program.address(), forwarded);
    wait_until("four lines", || read().lines().count() == 4);
    let text = read();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("\"GET /a%20b?c HTTP/1.1\" 301 "), "{text}");
    assert!(lines[0].contains(&format!("\" \"{backend}\" policy \"http://127.0.0.1:")), "{text}");
    assert!(lines[1].contains("\"GET /../x HTTP/1.1\" 400 ") && lines[1].ends_with('"'), "{text}");
    assert!(lines[2].contains("\"garbage\" 400 "), "{text}");
    assert!(lines[3].starts_with("192.0.2.7 - - ["), "{text}");
    let renamed = balancer.folder.path().join("access.log.1");
    std::fs::rename(&path, &renamed).unwrap();
    balancer.program.signal(rustix::process::Signal::USR1);
    let mut paths = (0..).map(|number| format!("/again{number}"));
    wait_until("a retry in the new file", || {
        let path = paths.next().unwrap();
        http::get(balancer.program.address(), &path);
        // A request within a second is not a retry.
        std::thread::sleep(std::time::Duration::from_millis(1300));
        http::get(balancer.program.address(), &path);
        read().contains("\" retry \"")
    });
    assert_eq!(balancer.metric("fingerpost_access_log_lines_lost_total"), Some(0.0));
}

#[test]
fn a_webhook_is_notified_of_the_loss_of_the_last_server() {
    let receiver = Script::prompt().start();
    let mut balancer = Operated::start(&[]);
    let config = format!(
        "[balancer]\nwebhook = \"http://{}/hook\"\nwebhook_after = \"1s\"\naccess_log = \"log\"\n\
         access_log_format = \"json\"\n",
        receiver.authority()
    );
    std::fs::write(balancer.folder.path().join("own.toml"), config).unwrap();
    balancer.flags.extend(["--config".to_owned(), "own.toml".to_owned()]);
    balancer.program.kill();
    balancer.restart();
    balancer.wait_until_up();
    for peer in &balancer.peers {
        peer.becomes(Script::status(500));
    }
    // Two servers are down, and no server is usable.
    wait_until("three notifications", || receiver.requests().len() == 3);
    for request in receiver.requests() {
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("application/json"), "{request}");
    }
    for peer in &balancer.peers {
        peer.becomes(Script::prompt());
    }
    wait_until("three more notifications", || receiver.requests().len() == 6);
    http::get(balancer.program.address(), "/x");
    wait_until("a line of the access log", || {
        let text = std::fs::read_to_string(balancer.folder.path().join("log")).unwrap_or_default();
        let Some(line) = text.lines().last() else { return false };
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["reason"], &line["target"]), (&"policy".into(), &"/x".into()));
        line["alternates"].as_array().map(Vec::len) == Some(1)
    });
}
