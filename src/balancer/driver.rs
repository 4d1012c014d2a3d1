//! Runs the admin API and the readers of state files in memory, for the fuzzer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use actix_http::Request;
use actix_rt::SystemRunner;
use actix_web::App;
use actix_web::http::{Method, Uri};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web::Data;
use arc_swap::ArcSwap;
use futures_util::future::LocalBoxFuture;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::Balancer;
use super::admin::access::Access;
use super::admin::{Admin, api};
use super::health::ProbeOutcome;
use super::orders::OrderBook;
use super::policy::PolicyName;
use super::ranking::table::RoutingTable;
use super::snapshot::Snapshot;
use crate::load_report::LoadReport;

/// The servers of the driven balancer. The one with https never answers.
const SERVERS: [&str; 5] = [
    "127.0.0.1:4077 zone=a",
    "127.0.0.2:4077 zone=a weight=3",
    "https://127.0.0.3:4077/x tier=1",
    "[::1]:4077",
    "http://127.0.0.1:4077/x",
];

/// Answers the probes of the servers. A fuzzer in another process may do it already.
fn answer_probes() {
    for address in ["127.0.0.1:4077", "127.0.0.2:4077", "[::1]:4077"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1000]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
            }
        });
    }
}

type Answers = dyn Fn(Request) -> LocalBoxFuture<'static, ApiAnswer>;

/// A balancer with its admin API, without a listener.
pub struct ApiDriver {
    system: SystemRunner,
    balancer: Balancer,
    answers: Box<Answers>,
}

/// An answer of the API.
#[derive(Debug)]
pub struct ApiAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl ApiDriver {
    /// Starts the balancer.
    ///
    /// # Panics
    /// If the system has no thread left.
    #[must_use]
    #[allow(clippy::expect_used, reason = "only the fuzzer calls it")]
    pub fn start() -> Self {
        answer_probes();
        let system = actix_rt::System::new();
        let (balancer, answers) = system.block_on(async {
            let builder = Balancer::builder().probe_interval(std::time::Duration::from_secs(3600));
            let builder = SERVERS.iter().fold(builder, |builder, server| builder.backend(server));
            let balancer = builder.start().expect("the servers are valid");
            let access =
                Access::open(None, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).expect("it is loopback");
            let admin = Data::new(Admin {
                balancer: Arc::clone(&balancer.0),
                access: Arc::new(ArcSwap::from_pointee(access)),
                reload: None,
                fault_injection: false,
            });
            let app = init_service(App::new().app_data(admin).configure(api::configure)).await;
            let app = std::rc::Rc::new(app);
            let answers: Box<Answers> = Box::new(move |request| {
                let app = std::rc::Rc::clone(&app);
                Box::pin(async move {
                    let answer = call_service(&*app, request).await;
                    let status = answer.status().as_u16();
                    let body = read_body(answer).await.to_vec();
                    ApiAnswer { status, body }
                })
            });
            (balancer, answers)
        });
        Self { system, balancer, answers }
    }

    /// Sends a request; `None` if the target is not one of HTTP. A request with a body is a POST of JSON.
    ///
    /// # Panics
    /// If the API panics, changes something on a GET or a refused POST, or has orders that cannot be stored and read.
    pub fn request(&self, target: &str, body: Option<&[u8]>) -> Option<ApiAnswer> {
        let target: Uri = target.parse().ok().filter(|target: &Uri| target.path().starts_with('/'))?;
        let mut request = TestRequest::with_uri(&target.to_string()).insert_header(("Host", "localhost"));
        if let Some(body) = body {
            request = request.method(Method::POST).insert_header(("Content-Type", "application/json"));
            request = request.set_payload(body.to_vec());
        }
        let orders = &self.balancer.0.orders;
        let state = |book: &OrderBook| (book.clone(), redirects(&self.balancer.0.publisher.latest()));
        let before = state(&orders.book());
        let answer = self.system.block_on((self.answers)(request.to_request()));
        let after = state(&orders.book());
        assert!(before == after || body.is_some() && answer.status == 200, "{answer:?} changed something");
        check_stored(&after.0);
        Some(answer)
    }

    /// Reads the body of a state file, and restores the backends from it.
    ///
    /// # Panics
    /// If the reader or the later use of the state panics, or if the state cannot be stored and read again.
    #[allow(clippy::expect_used, reason = "only the fuzzer calls it")]
    pub fn read_state(&self, body: &[u8]) {
        let Ok(snapshot) = serde_json::from_slice::<Snapshot>(body) else { return };
        let shared = &self.balancer.0;
        let mut memory = snapshot.into_memory();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut entries = shared.publisher.latest().entries.clone();
        entries.iter_mut().for_each(|entry| memory.restore(entry, &shared.clock, now, wall));
        let mut random = SmallRng::seed_from_u64(1);
        for policy in [PolicyName::Adaptive, PolicyName::Hash] {
            let clock = &shared.clock;
            let took = std::time::Duration::from_millis(5);
            let report = Some(LoadReport { in_flight: 3, busy: Some(took), ..LoadReport::default() });
            let outcome = ProbeOutcome::Success { connect: took, first_byte: took, total: took, report };
            for entry in &mut entries {
                let _ = entry.observe(&outcome, &shared.answers.load().health_check, clock, now);
            }
            let table = RoutingTable::build(
                1,
                &mut entries,
                policy,
                &shared.answers.load().health_check,
                clock,
                now,
                &mut random,
            );
            let stored = Snapshot::of(&table, &shared.sources.latest(), clock, now, wall);
            let stored = serde_json::to_vec(&stored).expect("it is text and numbers");
            let again: Result<Snapshot, _> = serde_json::from_slice(&stored);
            assert!(again.is_ok(), "{again:?}");
            let status = super::StatusReport::of(&table, &shared.orders, clock, None);
            assert!(serde_json::to_vec(&status).is_ok());
            let events = super::admin::events::EventReport::of(&table, None, Some(usize::MAX), wall);
            let _ = (status.text(Some(80)), events.text());
        }
    }
}

fn redirects(table: &RoutingTable) -> Vec<u64> {
    table.entries.iter().map(|entry| entry.load.redirects()).collect()
}

/// Checks that a book is the same after it was written and read.
#[allow(clippy::expect_used, reason = "only the fuzzer calls it")]
fn check_stored(book: &OrderBook) {
    let stored = |book: &OrderBook| serde_json::to_value(book.records()).expect("it is text and numbers");
    let first = stored(book);
    let (read, unreadable) = OrderBook::from_records(first.as_array().expect("it is a list").clone());
    assert_eq!((unreadable, stored(&read)), (0, first));
}

/// Reads the body of a file of orders.
///
/// # Panics
/// If the reader panics, or if the orders cannot be stored and read again.
pub fn read_orders(body: &[u8]) {
    let Ok(records) = serde_json::from_slice(body) else { return };
    let (book, _) = OrderBook::from_records(records);
    check_stored(&book);
    if let Some(book) = book.without_ended(SystemTime::now()) {
        check_stored(&book);
    }
}
