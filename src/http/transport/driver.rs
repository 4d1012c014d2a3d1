//! Runs a whole connection in memory and in virtual time, for the tests and the fuzzer.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::{BodyStream, BoxBody};
use actix_http::{Request, Response, StatusCode};
use actix_service::fn_service;
use actix_service::{IntoServiceFactory, ServiceFactory};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{LocalSet, yield_now};
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::stream::Stream;
use super::worker::{Shared, Worker};
use super::{FastAnswer, FastPath, Limits, Offer, Pages, Peer, ServingControl};

/// The head that the fast path of the driven server answers.
pub const FAST: &[u8] = b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n";

/// The behaviour of the other end of a driven connection.
#[derive(Debug, Clone)]
pub struct Script<'a> {
    /// The pieces to send, each in a separate write.
    pub pieces: Vec<&'a [u8]>,
    /// Whether the sending side is closed after the last piece.
    pub closes: bool,
    /// Whether the answers are read.
    pub reads: bool,
}

/// The result of a driven connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The bytes that the other end read.
    pub sent: Vec<u8>,
    /// The virtual time until the end; `None` if the connection did not end within an hour.
    pub ended_after: Option<Duration>,
}

/// Drives a connection to its end.
///
/// The service answers `/empty`, `/large` and `/stream` with bodies of these kinds, and any other path with the path itself.
///
/// # Panics
/// If the connection panics.
#[must_use]
#[allow(clippy::expect_used, reason = "only the tests and the fuzzer call it")]
pub fn drive(script: &Script<'_>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime can be built"), run(script))
}

#[allow(clippy::expect_used, reason = "only the tests and the fuzzer call it")]
async fn run(script: &Script<'_>) -> Outcome {
    let began = Instant::now();
    let (control, changeable) = ServingControl::new(Limits::default(), Pages::built_in());
    let connections = Arc::clone(&control.connections);
    let shared = Shared { changeable, connections: Arc::clone(&connections), refusals: None };
    let worker = Rc::new(Worker::new(shared, Some(Rc::new(Fast))));
    tokio::task::spawn_local(Rc::clone(&worker).run_timers());
    let factory = IntoServiceFactory::<_, Request>::into_factory(fn_service(answer));
    let service = factory.new_service(()).await.expect("the service needs nothing");
    let (near, far) = tokio::io::duplex(16 << 10);
    let (place, _) = connections.enter(None);
    let mut connection = Connection::new(Stream::from(near), None, worker, place);
    let serving = tokio::task::spawn_local(async move { connection.serve(None, &service).await });

    let (mut reader, mut writer) = tokio::io::split(far);
    let writing = async {
        for piece in &script.pieces {
            // The connection may end before it has read everything.
            if writer.write_all(piece).await.is_err() {
                return;
            }
            yield_now().await;
        }
        if script.closes {
            let _ = writer.shutdown().await;
        }
    };
    let mut sent = Vec::new();
    let reading = async {
        if script.reads {
            let _ = reader.read_to_end(&mut sent).await;
        }
    };
    let all = futures_util::future::join3(serving, writing, reading);
    let ended = timeout(Duration::from_hours(1), all).await;
    let ended_after = ended.ok().map(|(served, (), ())| {
        served.expect("no input makes a connection panic");
        began.elapsed()
    });
    assert_eq!(connections.live(), usize::from(ended_after.is_none()), "every connection is counted out");
    Outcome { sent, ended_after }
}

async fn answer(request: Request) -> Result<Response<BoxBody>, Infallible> {
    let body = match request.path() {
        "/empty" => BoxBody::new(()),
        "/large" => BoxBody::new(vec![b'x'; 200_000]),
        "/stream" => {
            let chunks = ["some ", "", "chunks"]
                .map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes())));
            BoxBody::new(BodyStream::new(futures_util::stream::iter(chunks)))
        }
        path => BoxBody::new(format!("[{path}]")),
    };
    Ok(Response::with_body(StatusCode::OK, body))
}

/// Answers one head.
struct Fast;

impl FastPath for Fast {
    fn answer(&self, head: &[u8], _: Peer, answer: &mut FastAnswer) -> Offer {
        if head != FAST {
            return Offer::Declined;
        }
        answer.bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
        answer.body = Some(Bytes::from_static(b"[/fast]"));
        Offer::Answered
    }
}
