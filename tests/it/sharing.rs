//! Several balancers that share observations and orders through a real engine.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::openapi;
use super::support::engine::Engine;
use super::support::fleet::{Balancer, Fleet};
use super::support::load::Load;
use super::support::program::fingerpost;
use super::support::{http, wait_for, wait_until};

/// Five file servers and three balancers of one fleet.
struct Sharing {
    engine: Engine,
    /// The servers and the first balancer.
    fleet: Fleet,
    others: Vec<Balancer>,
}

impl Sharing {
    /// `None` if no engine is installed. `engine_flags` are those of the engine.
    fn start(servers: usize, engine_flags: &[&str]) -> Option<Self> {
        let engine = Engine::start(engine_flags)?;
        let url = engine.url();
        let flags =
            |name| ["--probe-interval", "1s", "--fleet", &url, "--fleet-name", name].map(str::to_owned);
        let own = flags("b0");
        let fleet = Fleet::start_with(servers, &own.each_ref().map(String::as_str));
        let list: Vec<_> = (0..servers).map(|server| fleet.authority(server)).collect();
        let other = |name| {
            let flags = flags(name);
            Balancer::start_with(&list.join("\n"), &flags.each_ref().map(String::as_str))
        };
        let others = ["b1", "b2"].map(other).into();
        let sharing = Self { engine, fleet, others };
        sharing.wait_until_complete();
        Some(sharing)
    }

    fn balancers(&self) -> impl Iterator<Item = &Balancer> {
        std::iter::once(self.fleet.balancer()).chain(&self.others)
    }

    /// Waits until each balancer counts both others and the engine works for it.
    #[track_caller]
    fn wait_until_complete(&self) {
        for balancer in self.balancers() {
            wait_until("all balancers to count", || {
                let fleet = fleet_of(balancer);
                let counted = fleet["balancers"].as_array().unwrap().iter();
                fleet["engine"] == "up" && counted.filter(|other| other["standing"] == "counted").count() == 2
            });
        }
    }
}

pub(super) fn fleet_of(balancer: &Balancer) -> Value {
    serde_json::from_slice(&http::get(balancer.admin_address(), "/api/v1/fleet").body).unwrap()
}

fn readiness(balancer: &Balancer) -> String {
    let answer = http::get(balancer.admin_address(), "/readyz");
    assert_eq!(answer.status, 200);
    answer.text()
}

fn is_engine_up(balancer: &Balancer) -> bool {
    balancer.metric("fingerpost_fleet_engine_up") == Some(1.0)
}

pub(super) fn command(balancer: &Balancer, arguments: &[&str]) -> String {
    let admin = format!("http://{}/", balancer.admin_address());
    let output = fingerpost().args(arguments).env("FINGERPOST_ADMIN", admin).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn balancers_show_each_other_and_share_probes() {
    let Some(sharing) = Sharing::start(3, &[]) else { return };
    let description = http::get(sharing.others[0].admin_address(), "/api/v1/openapi.json");
    let description: Value = serde_json::from_slice(&description.body).unwrap();
    for balancer in sharing.balancers() {
        wait_until("the probes to be shared", || fleet_of(balancer)["shares_probes"] == true);
        openapi::check_answer(&description, "/api/v1/fleet", &fleet_of(balancer));
        let backends = serde_json::from_slice(&http::get(balancer.admin_address(), "/api/v1/backends").body);
        openapi::check_answer(&description, "/api/v1/backends", &backends.unwrap());
        assert_eq!(fleet_of(balancer)["orders"], "applied on 3 of 3");
        assert!(balancer.backends().iter().all(|backend| backend["seen_by"]["of"].as_u64() >= Some(2)));
    }
    let text = command(&sharing.others[1], &["status", "--fleet"]);
    assert!(["engine: up", "b0", "b1", "counted", "b2"].iter().all(|word| text.contains(word)), "{text}");
    let lists: Vec<_> =
        sharing.balancers().map(|balancer| fleet_of(balancer)["balancers"][0]["list"].clone()).collect();
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:?}");
}

#[test]
fn an_order_for_one_balancer_is_in_force_on_all_within_a_second() {
    let Some(sharing) = Sharing::start(3, &[]) else { return };
    let name = sharing.fleet.authority(1);
    let orders_of = |balancer: &Balancer| {
        let address = format!("http://{name}");
        let own = balancer.backends().into_iter().find(|backend| backend["address"] == address);
        let own = own.unwrap();
        (own["orders"].as_array().unwrap().len(), own["orders_applied"].clone())
    };
    for (arguments, count) in [(["drain", &name], 1), (["enable", &name], 0)] {
        command(&sharing.others[1], &arguments);
        let given = Instant::now();
        for balancer in sharing.balancers() {
            wait_until("the order to be in force", || orders_of(balancer).0 == count);
        }
        assert!(given.elapsed() < Duration::from_secs(1), "{:?}", given.elapsed());
    }
    command(&sharing.others[0], &["drain", &name]);
    for balancer in sharing.balancers() {
        wait_until("the order to be shown", || orders_of(balancer) == (1, "applied on 3 of 3".into()));
        assert_eq!(balancer.redirects(60).to(&name), 0);
    }
}

#[test]
fn an_order_of_a_time_without_engine_is_in_force_on_all_after_its_return() {
    let Some(mut sharing) = Sharing::start(3, &[]) else { return };
    sharing.engine.kill();
    wait_until("the loss of the engine", || !sharing.balancers().any(is_engine_up));
    let (first, second) = (sharing.fleet.authority(0), sharing.fleet.authority(1));
    command(&sharing.others[0], &["drain", &first]);
    command(&sharing.others[1], &["weight", &second, "7"]);
    sharing.engine.restart();
    for balancer in sharing.balancers() {
        wait_until("both orders", || {
            let orders =
                balancer.backends().iter().map(|own| own["orders"].as_array().unwrap().len()).sum::<usize>();
            orders == 2
        });
    }
}

#[test]
fn a_failure_spreads_from_its_probers_to_all() {
    let Some(mut sharing) = Sharing::start(3, &[]) else { return };
    for balancer in sharing.balancers() {
        wait_until("the probes to be shared", || fleet_of(balancer)["shares_probes"] == true);
    }
    let killed = sharing.fleet.authority(2);
    let loads: Vec<_> = sharing.balancers().map(Load::start).collect();
    sharing.fleet.kill(2);
    let at = Instant::now();
    for balancer in sharing.balancers() {
        // At a sixth of the rate, the third balancer would notice it after up to 6 s.
        balancer.wait_for_state(&killed, "down");
    }
    assert!(at.elapsed() < Duration::from_secs(6), "{:?}", at.elapsed());
    let counts: Vec<_> = loads.iter().map(Load::count).collect();
    for (load, count) in loads.iter().zip(counts) {
        wait_until("more answers", || load.count() > count + 50);
        assert_eq!(load.redirects_after(count + 10).to(&killed), 0);
    }
    loads.into_iter().for_each(Load::stop);
}

#[test]
fn a_balancer_that_is_cut_off_from_everything_keeps_its_table() {
    let Some(mut sharing) = Sharing::start(2, &[]) else { return };
    for server in 0..2 {
        sharing.fleet.signal(server, Signal::STOP);
    }
    sharing.engine.kill();
    for balancer in sharing.balancers() {
        wait_until("the balancer to notice it", || readiness(balancer).contains("cut off"));
        assert_eq!(balancer.redirects(40).authorities().len(), 2);
    }
    for server in 0..2 {
        sharing.fleet.signal(server, Signal::CONT);
    }
    for balancer in sharing.balancers() {
        wait_until("the servers to answer again", || !readiness(balancer).contains("cut off"));
    }
}

#[test]
fn a_balancer_starts_and_works_without_its_engine_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "hidden-secret\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = fingerpost();
    command.env("FINGERPOST__FLEET__PASSWORD_FILE", &secret);
    command.env("FINGERPOST__BALANCER__FLEET", "redis://127.0.0.1:1");
    let servers = Fleet::start(1);
    let balancer = Balancer::start_by(&mut command, &servers.authority(0));
    balancer.wait_for_state(&servers.authority(0), "up");
    balancer.wait_for_status(301);
    wait_until("the balancer to be ready", || http::get(balancer.admin_address(), "/readyz").status == 200);
    assert!(readiness(&balancer).contains("alone"));
    let fleet =
        wait_for("the report", || Some(fleet_of(&balancer)).filter(|fleet| fleet["name"].is_string()));
    assert!(fleet["engine"].as_str().unwrap().contains("cannot reach the engine"), "{fleet}");
    assert!(!balancer.program().stderr().contains("hidden-secret"));

    let arguments = ["balancer", "--fleet", "redis://user:hidden-secret@127.0.0.1"];
    let output = fingerpost().args(arguments).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("fleet.password_file"), "{message}");
    assert!(!message.contains("hidden-secret"), "{message}");
}

#[test]
fn servers_in_the_zone_of_the_balancer_come_first() {
    let servers = Fleet::start(3);
    let lines: Vec<_> = ["eu", "us", "us"]
        .iter()
        .enumerate()
        .map(|(at, zone)| format!("{} zone={zone}", servers.authority(at)))
        .collect();
    let balancer = Balancer::start_with(&lines.join("\n"), &["--probe-interval", "200ms", "--zone", "eu"]);
    for server in 0..3 {
        balancer.wait_for_state(&servers.authority(server), "up");
    }
    wait_until("only the near server to be used", || {
        balancer.redirects(30).authorities() == [servers.authority(0)]
    });
}
