//! Faults of the engine while clients use every balancer: no fault may fail a request or lose a server, and everything must
//! work again soon after its end.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::registration::Server;
use super::sharing::{command, fleet_of};
use super::support::engine::Engine;
use super::support::fleet::Balancer;
use super::support::load::Load;
use super::support::{http, wait_at_most, wait_until};

/// The time between two requests to each balancer.
const REQUEST_INTERVAL: Duration = Duration::from_millis(1);

/// The time after which everything must work again.
const CONVERGENCE: Duration = Duration::from_secs(10);

/// A fault of the engine.
struct Fault {
    name: &'static str,
    begin: fn(&mut Engine),
    end: fn(&mut Engine),
    /// The time from the begin to the end, in seconds.
    seconds: u64,
    /// A part of the reason that balancers show, if they lose the engine.
    loss: Option<&'static str>,
}

const FAULTS: [Fault; 8] = [
    Fault {
        name: "stopped, restarted empty",
        begin: Engine::kill,
        end: Engine::restart,
        seconds: 60,
        loss: Some(""),
    },
    Fault {
        name: "restarted with old data",
        begin: store_and_kill,
        end: restart_with_old_data,
        seconds: 10,
        loss: Some(""),
    },
    Fault { name: "SIGSTOP", begin: pause, end: resume, seconds: 30, loss: Some("") },
    Fault { name: "wiped", begin: wipe, end: |_| (), seconds: 5, loss: None },
    Fault { name: "memory full", begin: fill_memory, end: free_memory, seconds: 10, loss: Some("") },
    Fault { name: "foreign types", begin: store_foreign_types, end: |_| (), seconds: 5, loss: None },
    Fault { name: "garbage", begin: store_garbage, end: |_| (), seconds: 5, loss: None },
    Fault { name: "another password", begin: lock, end: unlock, seconds: 10, loss: Some("denied access") },
];

fn store_and_kill(engine: &mut Engine) {
    engine.command::<()>(&["SAVE"]);
    engine.kill();
}

fn restart_with_old_data(engine: &mut Engine) {
    engine.restart_with_stored_data();
    assert!(engine.command::<i64>(&["DBSIZE"]) > 0);
}

fn pause(engine: &mut Engine) {
    engine.signal(Signal::STOP);
}

fn resume(engine: &mut Engine) {
    engine.signal(Signal::CONT);
}

fn wipe(engine: &mut Engine) {
    engine.command::<()>(&["FLUSHALL"]);
}

fn fill_memory(engine: &mut Engine) {
    engine.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
}

fn free_memory(engine: &mut Engine) {
    engine.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
}

fn store_foreign_types(engine: &mut Engine) {
    for key in engine.command::<Vec<String>>(&["KEYS", "*"]) {
        engine.command::<()>(&["DEL", &key]);
        engine.command::<()>(&["SADD", &key, "garbage"]);
    }
    engine.command::<()>(&["LPUSH", "{fingerpost}:1:server:http://127.0.0.1:4", "garbage"]);
}

fn store_garbage(engine: &mut Engine) {
    let (long, records) = ("x".repeat(9_000_000), "{fingerpost}:1:records");
    for value in ["", "garbage", "\u{1}garbage", &long, &long] {
        engine.command::<String>(&["XADD", records, "*", "r", value]);
    }
    engine.command::<String>(&["XADD", records, "*", "other", "garbage"]);
    for (field, value) in [("field", "garbage"), ("weight http://127.0.0.1:1", &long)] {
        engine.command::<()>(&["HSET", "{fingerpost}:1:orders", field, value]);
    }
    let foreign = "1 2 http://127.0.0.9:9";
    for (name, value) in [("x", foreign), ("http://127.0.0.1:1", &long), ("http://127.0.0.1:2", foreign)] {
        engine.command::<()>(&["SET", &format!("{{fingerpost}}:1:server:{name}"), value]);
    }
    engine.command::<()>(&["SET", "{fingerpost}:1:servers-changed", &long]);
}

fn lock(engine: &mut Engine) {
    engine.change_password("another");
}

fn unlock(engine: &mut Engine) {
    engine.change_password("");
}

/// Three balancers and three servers that know each other only through the engine.
struct Machines {
    engine: Engine,
    servers: Vec<Server>,
    balancers: Vec<Balancer>,
}

impl Machines {
    fn start() -> Option<Self> {
        let engine = Engine::start(&[])?;
        let url = engine.url();
        let servers = (0..3).map(|_| Server::start(&engine, &[])).collect();
        let flags = ["--probe-interval", "500ms", "--backends", &url, "--fleet", &url, "--fleet-name"];
        let balancer = |name| Balancer::start_with("", &[&flags[..], &[name]].concat());
        let balancers = ["b0", "b1", "b2"].into_iter().map(balancer).collect();
        let machines = Self { engine, servers, balancers };
        wait_until("everything to work", || machines.problem(None).is_none());
        Some(machines)
    }

    /// The first part that does not work; `None` if all balancers share, have all servers up, and have the order with this
    /// weight in force.
    fn problem(&self, weight: Option<u64>) -> Option<String> {
        let registered = self.engine.servers().len();
        if registered < self.servers.len() {
            return Some(format!("{registered} registered servers"));
        }
        self.balancers.iter().find_map(|balancer| {
            let (fleet, report) = (fleet_of(balancer), report(balancer));
            let others = fleet["balancers"].as_array().into_iter().flatten();
            let counted = others.filter(|other| other["standing"] == "counted").count();
            let orders = weight.map(|_| Value::from("applied on 3 of 3"));
            let works = fleet["engine"] == "up"
                && counted == 2
                && report["sources"][1]["error"].is_null()
                && self.has_all_servers(balancer)
                && weight_of(&report, &self.servers[0].authority) == weight
                && orders.is_none_or(|orders| fleet["orders"] == orders);
            (!works).then(|| format!("{fleet}\n{report}"))
        })
    }

    fn has_all_servers(&self, balancer: &Balancer) -> bool {
        self.servers.iter().all(|server| balancer.state(&server.authority).as_deref() == Some("up"))
    }

    /// Plays one fault. Meanwhile, one balancer gets an order.
    fn withstand(&mut self, fault: &Fault, length: Duration, weight: u64) {
        let load = |balancer: &Balancer| Load::start_each(REQUEST_INTERVAL, balancer);
        let loads: Vec<_> = self.balancers.iter().map(load).collect();
        let begun_at = Instant::now();
        (fault.begin)(&mut self.engine);
        if let Some(reason) = fault.loss {
            let is_lost = |balancer: &Balancer| {
                let engine = fleet_of(balancer)["engine"].to_string();
                engine != "\"up\"" && engine.contains(reason)
            };
            wait_until(&format!("the loss of the engine: {}", fault.name), || {
                self.balancers.iter().all(is_lost)
            });
        }
        command(&self.balancers[1], &["weight", &self.servers[0].authority, &weight.to_string()]);
        while begun_at.elapsed() < length {
            for balancer in &self.balancers {
                assert_eq!(http::get(balancer.admin_address(), "/readyz").status, 200);
                assert!(self.has_all_servers(balancer), "{}: {}", fault.name, report(balancer));
            }
            thread::sleep(Duration::from_millis(200));
        }
        (fault.end)(&mut self.engine);
        let mut problem = None;
        let ended_at = Instant::now();
        while ended_at.elapsed() < CONVERGENCE {
            problem = self.problem(Some(weight));
            if problem.is_none() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(problem, None, "{CONVERGENCE:?} after {}", fault.name);
        println!("{}: everything works after {:?}", fault.name, ended_at.elapsed());
        for load in loads {
            assert!(load.count() > 0);
            load.stop();
        }
    }
}

fn report(balancer: &Balancer) -> Value {
    serde_json::from_slice(&http::get(balancer.admin_address(), "/api/v1/backends").body).unwrap()
}

/// The weight that an order gives to a server.
fn weight_of(report: &Value, authority: &str) -> Option<u64> {
    let address = format!("http://{authority}");
    let own = report["backends"].as_array().unwrap().iter().find(|backend| backend["address"] == address)?;
    own["orders"].as_array().unwrap().iter().find_map(|order| order["weight"].as_u64())
}

/// Plays all faults, each for a fraction of its full length.
fn withstand_all(fraction: f64) {
    let Some(mut machines) = Machines::start() else { return };
    for (fault, weight) in FAULTS.iter().zip(2..) {
        let length = Duration::from_secs(fault.seconds).mul_f64(fraction);
        machines.withstand(fault, length, weight);
    }
    let skipped = |balancer: &Balancer| balancer.metric("fingerpost_fleet_records_invalid_total");
    // The first balancer that reads an invalid order removes it, and each passes over records together with long ones.
    assert!(machines.balancers.iter().any(|balancer| skipped(balancer) > Some(0.0)));
    for balancer in &machines.balancers {
        assert_eq!(report(balancer)["sources"][1]["skipped"], 3);
        balancer.program().wait_for_stderr("the engine denied access");
    }
}

#[test]
fn no_fault_of_the_engine_fails_a_request_or_loses_a_server() {
    withstand_all(0.02);
}

#[test]
#[ignore = "it takes three minutes"]
fn no_long_fault_of_the_engine_fails_a_request_or_loses_a_server() {
    withstand_all(1.0);
}

#[test]
fn a_server_renews_its_lease_while_the_memory_of_the_engine_is_full() {
    let Some(mut engine) = Engine::start(&[]) else { return };
    let _server = Server::start(&engine, &[]);
    wait_until("the registration", || engine.servers().len() == 1);
    fill_memory(&mut engine);
    let left = |engine: &Engine| -> i64 { engine.command(&["PTTL", &engine.servers()[0]]) };
    wait_until("most of a lease to pass", || left(&engine) < 7_500);
    wait_at_most(Duration::from_secs(4), "a renewal", || (left(&engine) > 8_500).then_some(()));
}

#[test]
fn an_order_is_stored_although_its_key_has_a_foreign_type() {
    let Some(engine) = Engine::start(&[]) else { return };
    let (server, url, key) = (Server::start(&engine, &[]), engine.url(), "{fingerpost}:1:orders");
    let balancer = Balancer::start_with("", &["--backends", &url, "--fleet", &url]);
    balancer.wait_for_state(&server.authority, "up");
    wait_until("the engine", || fleet_of(&balancer)["engine"] == "up");
    engine.command::<()>(&["DEL", key]);
    engine.command::<()>(&["SADD", key, "garbage"]);
    command(&balancer, &["weight", &server.authority, "7"]);
    wait_until("the order in the engine", || {
        engine.command::<String>(&["TYPE", key]) == "hash" && engine.command::<u64>(&["HLEN", key]) == 1
    });
    wait_until("the engine to work", || fleet_of(&balancer)["engine"] == "up");
}
