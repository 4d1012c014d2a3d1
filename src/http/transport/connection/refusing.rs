//! Connections and requests that get a page and no service.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use actix_http::StatusCode;
use tokio::io::ReadBuf;

use super::super::ending::{Body, Ending, LINGER};
use super::super::link::{AnswerEnd, Completion, Stage, Worker};
use super::super::refusal::Refusal;
use super::super::stream::Stream;
use super::{Connection, scan_head};

/// What is looked at of a request that is refused whatever it says.
const GLANCE: usize = 1024;

impl Connection {
    /// A connection that gets the page of this status and no service.
    pub(in super::super) async fn refuse(
        stream: Stream,
        peer: Option<SocketAddr>,
        worker: Rc<Worker>,
        status: StatusCode,
    ) -> io::Result<()> {
        let mut connection = Self::new(stream, peer, worker);
        let mut space = [0; GLANCE];
        let mut buf = ReadBuf::new(&mut space);
        let first = std::future::poll_fn(|cx| connection.stream.poll_read(cx, &mut buf));
        if let Ok(read) = tokio::time::timeout(LINGER, first).await {
            read?;
            // Only to know a HEAD request, whose answer has no body, and for the log.
            let worker = &connection.link.worker;
            scan_head(&mut connection.scan, &mut connection.line, worker, buf.filled());
        }
        connection.end_with(status);
        // Whoever takes nothing of the page keeps the place of another one that is refused.
        let ending = std::future::poll_fn(|cx| connection.poll_ending(cx));
        tokio::time::timeout(LINGER, ending).await.unwrap_or(Ok(()))
    }

    /// Reads nothing more, and answers with the page of this status.
    pub(super) fn end_with(&mut self, status: StatusCode) {
        let body = if self.scan.is_head_request() { Body::None } else { Body::Page };
        self.ending = Some(Ending::with_page(status, body, &self.link.worker.pages));
        self.link.stage.set(Stage::Ended);
        let connections = &self.link.worker.connections;
        match status {
            StatusCode::REQUEST_TIMEOUT => connections.late_heads.fetch_add(1, Ordering::Relaxed),
            StatusCode::SERVICE_UNAVAILABLE => 0,
            _ => connections.bad_heads.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Tells those who log refusals, once the connection has ended.
    pub(super) fn report_refusal(&self) {
        let page = self.ending.as_ref().and_then(|ending| Some((ending.page()?, ending.is_sent())));
        if let (Some(log), Some((page, is_sent))) = (&self.link.worker.refusals, page) {
            let completion = if is_sent { Completion::Whole } else { Completion::Aborted };
            let body_sent = self.link.sent_of_answer().saturating_sub(page.head_length);
            log.refused(&Refusal {
                client: self.peer.map(|peer| peer.ip().to_canonical()),
                request_line: self.line.bytes(),
                status: page.status,
                end: AnswerEnd { body_sent, completion },
            });
        }
    }
}

/// The status of an answer that the dispatcher made by itself, `HTTP/1.1 400 Bad Request` and so on.
pub(super) fn parser_status(answer: &[u8]) -> StatusCode {
    answer
        .get(9..12)
        .and_then(|digits| StatusCode::from_bytes(digits).ok())
        .filter(|status| status.is_client_error() || status.is_server_error())
        .unwrap_or(StatusCode::BAD_REQUEST)
}
