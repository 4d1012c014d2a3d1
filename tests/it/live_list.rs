//! Changes of the list of a running balancer under load.

use super::support::fleet::Balancer;
use super::support::http;
use super::support::load::Load;
use super::support::misbehaving::{FileServer, Script};
use super::support::wait_until;

struct Setup {
    peers: Vec<FileServer>,
    balancer: Balancer,
}

impl Setup {
    /// A balancer whose list has only the first of three servers, which is up.
    fn start() -> Self {
        let peers: Vec<_> = (0..3).map(|_| Script::prompt().start()).collect();
        let balancer = Balancer::start(&peers[0].authority());
        balancer.wait_for_state(&peers[0].authority(), "up");
        Self { peers, balancer }
    }

    fn list(&self, servers: &[usize]) -> String {
        servers.iter().map(|server| self.peers[*server].authority() + "\n").collect()
    }

    /// Waits until the list is active and all its servers are up.
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
fn edits_take_effect_under_load_without_an_error() {
    let setup = Setup::start();
    let load = Load::start(&setup.balancer);

    std::fs::write(setup.balancer.list_path(), setup.list(&[0, 1])).unwrap();
    setup.wait_for(&[0, 1]);
    setup.balancer.replace_list(&setup.list(&[2, 1]));
    setup.wait_for(&[2, 1]);
    let (old, count) = (setup.peers[0].authority(), load.count());
    wait_until("load on the new list", || load.count() > count + 100);
    assert_eq!(load.redirects_after(count).to(&old), 0);

    // While the file is deleted, the last list stays active. A new file with a change takes effect.
    std::fs::remove_file(setup.balancer.list_path()).unwrap();
    setup.balancer.program().wait_for_stderr("the last good list of servers stays active");
    std::fs::write(setup.balancer.list_path(), setup.list(&[0])).unwrap();
    setup.wait_for(&[0]);
    load.stop();
}

#[test]
fn the_last_good_list_stays_active_during_garbage_and_one_warning_is_logged() {
    let setup = Setup::start();
    let load = Load::start(&setup.balancer);
    for garbage in
        [b"\x7fELF\x02\x01\xff\xfe\n\0\0\0\n".as_slice(), b"<html>\n<body>no list</body>\n", &[0xFF; 10_000]]
    {
        std::fs::write(setup.balancer.list_path(), garbage).unwrap();
        let count = load.count();
        wait_until("load", || load.count() > count + 300);
    }
    setup.balancer.program().wait_for_stderr("the last good list of servers stays active");
    setup.balancer.replace_list(&setup.list(&[1]));
    setup.wait_for(&[1]);
    load.stop();
    let stderr = setup.balancer.program().stderr();
    assert_eq!(stderr.matches("stays active").count(), 1, "{stderr}");
}

#[test]
fn a_bad_line_is_logged_with_file_line_and_reason_and_the_other_lines_are_used() {
    let setup = Setup::start();
    setup.balancer.replace_list(&format!("{}\nnonsense\n{}", setup.list(&[1]), setup.list(&[0])));
    setup.wait_for(&[1, 0]);
    let stderr = setup.balancer.program().stderr();
    let line = stderr.lines().find(|line| line.contains("nonsense")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(line.contains("servers.txt") && line.contains("line=3") && line.contains("no port"), "{line}");
}

#[test]
fn an_emptied_list_gives_the_503_page_until_it_is_filled_again() {
    let setup = Setup::start();
    std::fs::write(setup.balancer.list_path(), "").unwrap();
    setup.balancer.wait_for_status(503);
    std::fs::write(setup.balancer.list_path(), setup.list(&[0])).unwrap();
    setup.balancer.wait_for_status(301);
}

#[test]
fn a_server_keeps_its_health_when_its_attributes_change() {
    let setup = Setup::start();
    let since = |authority: &str| {
        let address = format!("http://{authority}");
        let backends = setup.balancer.backends();
        let own = backends.iter().find(|backend| backend["address"] == address).unwrap();
        (own["state"].clone(), own["since"].clone())
    };
    let kept = setup.peers[0].authority();
    let before = since(&kept);
    setup.balancer.replace_list(&format!("{}{} weight=5 zone=eu\n", setup.list(&[1]), kept));
    setup.wait_for(&[1, 0]);
    assert_eq!(since(&kept), before);
}

#[cfg(unix)]
#[test]
fn sighup_reads_the_list_at_once() {
    let setup = Setup::start();
    // Without SIGHUP, a list without its last newline becomes active only after a second.
    std::fs::write(setup.balancer.list_path(), setup.list(&[0, 1]).trim_end()).unwrap();
    setup.balancer.program().signal(rustix::process::Signal::HUP);
    setup.balancer.program().wait_for_stderr("reading the list of servers on request");
    setup.wait_for(&[0, 1]);
}

/// A script may edit the list and send SIGHUP as soon as it has read the ready line.
#[cfg(unix)]
#[test]
fn sighup_right_after_the_ready_line_does_not_end_the_balancer() {
    let peer = Script::prompt().start();
    for _ in 0..8 {
        let mut balancer = Balancer::start(&peer.authority());
        balancer.program().signal(rustix::process::Signal::HUP);
        balancer.program().wait_for_stderr("reading the list of servers on request");
        balancer.wait_for_status(301);
        assert!(balancer.program_mut().is_running());
    }
}

#[test]
fn a_balancer_that_was_ready_stays_ready_when_a_server_joins_the_list() {
    let setup = Setup::start();
    let ready = || http::get(setup.balancer.admin_address(), "/readyz").status;
    wait_until("the balancer to be ready", || ready() == 200);
    // This server answers no probe.
    let peer = Script::prompt().hangs().start();
    let silent = peer.authority();
    setup.balancer.replace_list(&format!("{}{silent}\n", setup.list(&[0])));
    wait_until("the new server to be probed", || {
        assert_eq!(ready(), 200);
        setup.balancer.state(&silent).is_some_and(|state| state != "unknown")
    });
}
