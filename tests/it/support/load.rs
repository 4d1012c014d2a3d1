//! Clients that send requests to a balancer during a test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fleet::{Balancer, Redirects};
use super::http::{Answer, Connection};

/// The time between two requests of [`Load::start`].
const INTERVAL: Duration = Duration::from_millis(2);

/// Sends requests at a fixed rate on one connection until it is stopped. Every answer must be a redirect.
pub struct Load {
    shared: Arc<Shared>,
    client: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<Vec<Answer>>,
    is_over: AtomicBool,
}

impl Load {
    /// Starts 500 requests per second.
    pub fn start(balancer: &Balancer) -> Self {
        Self::start_each(INTERVAL, balancer)
    }

    /// Starts a request after each `interval`.
    pub fn start_each(interval: Duration, balancer: &Balancer) -> Self {
        let shared = Arc::new(Shared::default());
        let (address, told) = (balancer.address(), Arc::clone(&shared));
        let client = thread::spawn(move || {
            let mut connection = Connection::open(address).unwrap();
            let mut due = Instant::now();
            while !told.is_over.load(Ordering::Relaxed) {
                let answer = connection.get("/plshelp.txt").unwrap();
                assert_eq!(answer.status, 301, "{answer:?}");
                told.answers.lock().unwrap().push(answer);
                due = (due + interval).max(Instant::now());
                thread::sleep(due.duration_since(Instant::now()));
            }
        });
        Self { shared, client }
    }

    /// The number of answers so far.
    ///
    /// # Panics
    /// If an answer was not a redirect, or was missing.
    #[track_caller]
    pub fn count(&self) -> usize {
        assert!(!self.client.is_finished(), "an answer was not a redirect");
        self.shared.answers.lock().unwrap().len()
    }

    /// The targets of the answers after the first `count`.
    pub fn redirects_after(&self, count: usize) -> Redirects {
        let mut redirects = Redirects::default();
        for answer in &self.shared.answers.lock().unwrap()[count..] {
            redirects.add(answer);
        }
        redirects
    }

    /// Stops the requests.
    ///
    /// # Panics
    /// If an answer was not a redirect, or was missing.
    pub fn stop(self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.client.join().unwrap();
    }
}
