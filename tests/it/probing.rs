//! Outcomes of probes and their effect on redirects.

use std::io::Write as _;
use std::time::Duration;

use super::client_http::Raw;
use super::support::digits;
use super::support::fleet::Balancer;
use super::support::misbehaving::{BODY, FileServer, Script};
use super::support::program::fingerpost;

fn hangs_in_the_head() -> Script {
    Script::prompt().stalls_after(b"HTTP/1.1 200 OK\r\nContent-Le")
}

#[test]
fn the_ranks_of_three_servers_share_10_000_redirects_as_3_to_2_to_1() {
    let peers = [0, 50, 100].map(|delay| Script::prompt().delays_head(Duration::from_millis(delay)).start());
    let list = peers.each_ref().map(FileServer::authority).join("\n");
    let balancer = Balancer::start_with(&list, &["--policy", "ranked", "--probe-interval", "500ms"]);
    for peer in &peers {
        balancer.wait_for_state(&peer.authority(), "up");
    }
    let redirects = balancer.redirects(10_000);
    for (peer, share) in peers.iter().zip([3.0, 2.0, 1.0]) {
        let percent = redirects.to(&peer.authority()) as f64 / 100.0;
        let expected = share / 6.0 * 100.0;
        assert!((percent - expected).abs() < 2.0, "{percent} % instead of {expected} %: {redirects:?}");
    }
}

#[test]
fn a_server_with_any_kind_of_wrong_answer_gets_no_client_while_another_is_usable() {
    let sound = Script::prompt().start();
    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    let scripts = [
        Script::status(404),
        Script::status(500),
        Script::redirect("/", &[]),
        Script::prompt().closes_at(BODY.len() / 2),
        Script::prompt().sends_forever("Transfer-Encoding: chunked", &chunk),
        Script::prompt().sends_forever("Content-Length: 1000000000000000000", &[b'x'; 0x4000]),
        Script::prompt().sends(*b"\x16\x03\x01\0\xFFnot HTTP at all\r\n\r\n"),
        Script::prompt().hangs(),
        hangs_in_the_head(),
        Script::prompt().sends(*b""),
    ];
    let wrong: Vec<_> = scripts.into_iter().map(Script::start).collect();
    let lines: Vec<_> = wrong.iter().chain([&sound]).map(FileServer::authority).collect();
    let balancer = Balancer::start(&lines.join("\n"));
    for peer in &wrong {
        balancer.wait_for_state(&peer.authority(), "down");
    }
    balancer.wait_for_state(&sound.authority(), "up");
    assert_eq!(balancer.redirects(200).authorities(), [sound.authority()]);
}

#[test]
fn a_server_whose_probed_file_has_other_content_than_expected_gets_no_client() {
    let peers = [(); 4].map(|()| Script::prompt().start());
    let [plain, other, digest, wrong_digest] = peers.each_ref().map(FileServer::authority);
    let sound = format!("sha-256:{}", digits::<sha2::Sha256>(BODY));
    let wrong = "0".repeat(64);
    let list = format!(
        "{plain}\n{other} expect=text:am%20a%20page\n{digest} expect={sound}\n{wrong_digest} expect=sha-256:{wrong}"
    );
    let flags = ["--probe-interval", "200ms", "--probe-expect", "text:I am a file"];
    let balancer = Balancer::start_with(&list, &flags);
    for (authority, state) in [(&plain, "up"), (&other, "down"), (&digest, "up"), (&wrong_digest, "down")] {
        balancer.wait_for_state(authority, state);
    }
    let shown = balancer.backends().into_iter().find(|backend| backend["state"] == "down").unwrap();
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains("other content than probes expect"), "{reason}");
    assert!(balancer.metric("fingerpost_probes_total{outcome=\"content\"}").unwrap() >= 2.0);
    // A change of the attribute alone takes effect.
    balancer.replace_list(&format!("{plain}\n{other} expect=text:file\n"));
    balancer.wait_for_state(&other, "up");

    let output = fingerpost().args(["balancer", "--probe-expect", "abc"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("balancer.probe_expect = abc: it must be text:SUBSTRING"), "{message}");
}

#[test]
fn a_server_that_failed_one_probe_is_not_chosen_while_another_is_usable() {
    let (steady, shaky) = (Script::prompt().start(), Script::prompt().start());
    let list = format!("{}\n{}", steady.authority(), shaky.authority());
    // `fall` keeps the server suspect for the whole test. The policy `random` does not depend on earlier redirects.
    let keys = [("FALL", "1000"), ("PROBE_INTERVAL", "200ms"), ("POLICY", "random")];
    let balancer = Balancer::start_with_keys(&list, &keys);
    for peer in [&steady, &shaky] {
        balancer.wait_for_state(&peer.authority(), "up");
    }
    shaky.becomes(Script::status(500));
    balancer.wait_for_state(&shaky.authority(), "suspect");
    assert_eq!(balancer.redirects(200).authorities(), [steady.authority()]);
    // Without a server that is up, suspect servers are used.
    steady.becomes(Script::status(500));
    balancer.wait_for_state(&steady.authority(), "suspect");
    assert_eq!(balancer.redirects(200).authorities().len(), 2);
}

#[test]
fn probes_skip_interim_answers_read_long_heads_and_look_up_names() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    let long: Vec<_> = (0..150).map(|number| format!("X-{number}: {}\r\n", "y".repeat(100))).collect();
    let long = long.concat();
    for before in [
        format!("{hint}HTTP/1.1 100 Continue\r\n\r\n{hint}HTTP/1.1 200 OK\r\n"),
        format!("HTTP/1.1 200 OK\r\n{long}"),
    ] {
        let server = Raw::start(move |_, stream| {
            stream.write_all(format!("{before}Content-Length: 3\r\n\r\nok\n").as_bytes())
        });
        let authority = server.url("").replace("http://127.0.0.1", "localhost");
        let balancer = Balancer::start(&authority);
        balancer.wait_for_state(&authority, "up");
    }
}

#[test]
fn the_status_contains_state_and_reason_of_each_server() {
    let (sound, broken) = (Script::prompt().start(), Script::status(500).start());
    let gone = Script::prompt().start().authority();
    let silent = Script::prompt().hangs().start();
    let endless = hangs_in_the_head().start();
    let own = [&sound, &broken, &silent, &endless].map(FileServer::authority);
    let list = format!("{}\n{gone}", own.join("\n"));
    let balancer = Balancer::start(&list);
    balancer.wait_for_state(&sound.authority(), "up");
    balancer.wait_for_state(&broken.authority(), "down");
    balancer.wait_for_state(&gone, "down");
    balancer.wait_for_state(&silent.authority(), "down");
    balancer.wait_for_state(&endless.authority(), "down");
    let admin = balancer.admin_address().to_string();
    let output = fingerpost().args(["status", &admin]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (authority, words) in [
        (sound.authority(), ["up", "answers"]),
        (broken.authority(), ["down", "answered with status 500 (Internal Server Error)"]),
        (gone, ["down", "connection refused"]),
        (silent.authority(), ["down", "timed out (no answer within 100ms)"]),
        (endless.authority(), ["down", "timed out (no answer within 100ms)"]),
    ] {
        let line = table.lines().find(|line| line.contains(&authority)).unwrap_or_else(|| panic!("{table}"));
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} not in {line:?}");
    }
}
