//! The list changes under a running balancer that is under load all the while.

use super::support::fleet::Balancer;
use super::support::http;
use super::support::load::Load;
use super::support::peer::{Behaviour, Peer};
use super::support::wait_until;

struct Story {
    peers: Vec<Peer>,
    balancer: Balancer,
}

impl Story {
    /// A balancer whose list names the first of three servers, which is up.
    fn start() -> Self {
        let peers: Vec<_> = (0..3).map(|_| Peer::start(Behaviour::Prompt)).collect();
        let balancer = Balancer::start(&peers[0].authority());
        balancer.wait_for_state(&peers[0].authority(), "up");
        Self { peers, balancer }
    }

    fn list(&self, servers: &[usize]) -> String {
        servers.iter().map(|server| self.peers[*server].authority() + "\n").collect()
    }

    /// Waits until the list is in force and all its servers are up.
    #[track_caller]
    fn wait_for(&self, servers: &[usize]) {
        let authorities: Vec<_> = servers.iter().map(|server| self.peers[*server].authority()).collect();
        self.balancer.wait_for_backends(&authorities.iter().map(String::as_str).collect::<Vec<_>>());
        for authority in &authorities {
            self.balancer.wait_for_state(authority, "up");
        }
    }
}

#[test]
fn edits_take_effect_under_load_without_one_error() {
    let story = Story::start();
    let load = Load::start(&story.balancer);

    std::fs::write(story.balancer.list_path(), story.list(&[0, 1])).unwrap();
    story.wait_for(&[0, 1]);
    story.balancer.replace_list(&story.list(&[2, 1]));
    story.wait_for(&[2, 1]);
    let (old, count) = (story.peers[0].authority(), load.count());
    wait_until("load on the new list", || load.count() > count + 100);
    assert_eq!(load.redirects_after(count).to(&old), 0);

    // Deleted: what is known stays in force. Restored with a change: the change counts.
    std::fs::remove_file(story.balancer.list_path()).unwrap();
    story.balancer.program().wait_for_stderr("the last good list of servers stays in force");
    std::fs::write(story.balancer.list_path(), story.list(&[0])).unwrap();
    story.wait_for(&[0]);
    load.stop();
}

#[test]
fn garbage_leaves_the_last_good_list_in_force_and_says_so_once() {
    let story = Story::start();
    let load = Load::start(&story.balancer);
    for garbage in
        [b"\x7fELF\x02\x01\xff\xfe\n\0\0\0\n".as_slice(), b"<html>\n<body>no list</body>\n", &[0xFF; 10_000]]
    {
        std::fs::write(story.balancer.list_path(), garbage).unwrap();
        let count = load.count();
        wait_until("load", || load.count() > count + 300);
    }
    story.balancer.program().wait_for_stderr("the last good list of servers stays in force");
    story.balancer.replace_list(&story.list(&[1]));
    story.wait_for(&[1]);
    load.stop();
    let stderr = story.balancer.program().stderr();
    assert_eq!(stderr.matches("stays in force").count(), 1, "{stderr}");
}

#[test]
fn a_bad_line_is_named_with_file_line_and_reason_and_the_rest_counts() {
    let story = Story::start();
    story.balancer.replace_list(&format!("{}\nnonsense\n{}", story.list(&[1]), story.list(&[0])));
    story.wait_for(&[1, 0]);
    let stderr = story.balancer.program().stderr();
    let line = stderr.lines().find(|line| line.contains("nonsense")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(line.contains("servers.txt") && line.contains("line=3") && line.contains("no port"), "{line}");
}

#[test]
fn an_emptied_list_gives_the_503_page_until_it_is_filled_again() {
    let story = Story::start();
    std::fs::write(story.balancer.list_path(), "").unwrap();
    story.balancer.wait_for_status(503);
    std::fs::write(story.balancer.list_path(), story.list(&[0])).unwrap();
    story.balancer.wait_for_status(301);
}

#[test]
fn the_health_of_a_server_that_stays_is_kept() {
    let story = Story::start();
    let since = |authority: &str| {
        let address = format!("http://{authority}");
        let backends = story.balancer.backends();
        let own = backends.iter().find(|backend| backend["address"] == address).unwrap();
        (own["state"].clone(), own["since"].clone())
    };
    let kept = story.peers[0].authority();
    let before = since(&kept);
    story.balancer.replace_list(&format!("{}{} weight=5 zone=eu\n", story.list(&[1]), kept));
    story.wait_for(&[1, 0]);
    assert_eq!(since(&kept), before);
}

#[cfg(unix)]
#[test]
fn sighup_reads_the_list_at_once() {
    let story = Story::start();
    // Without its last newline an edit would be given a second; whoever asks is not made to wait.
    std::fs::write(story.balancer.list_path(), story.list(&[0, 1]).trim_end()).unwrap();
    story.balancer.program().signal(rustix::process::Signal::HUP);
    story.balancer.program().wait_for_stderr("asked to read the list of servers again");
    story.wait_for(&[0, 1]);
}

/// A script that has read the ready line may edit the list and ask at once.
#[cfg(unix)]
#[test]
fn sighup_right_after_the_ready_line_does_not_end_the_balancer() {
    let peer = Peer::start(Behaviour::Prompt);
    for _ in 0..8 {
        let mut balancer = Balancer::start(&peer.authority());
        balancer.program().signal(rustix::process::Signal::HUP);
        balancer.program().wait_for_stderr("asked to read the list of servers again");
        balancer.wait_for_status(301);
        assert!(balancer.program_mut().is_running());
    }
}

#[test]
fn a_balancer_that_was_ready_stays_ready_when_a_server_joins_the_list() {
    let story = Story::start();
    let ready = || http::get(story.balancer.admin_address(), "/readyz").status;
    wait_until("the balancer to be ready", || ready() == 200);
    // One that answers no probe for as long as the story lasts.
    let peer = Peer::start(Behaviour::Hangs);
    let silent = peer.authority();
    story.balancer.replace_list(&format!("{}{silent}\n", story.list(&[0])));
    wait_until("the new server to be probed", || {
        assert_eq!(ready(), 200);
        story.balancer.state(&silent).is_some_and(|state| state != "unknown")
    });
}
