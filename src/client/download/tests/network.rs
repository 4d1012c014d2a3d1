//! Scripted servers in virtual time.

use std::collections::HashMap;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::*;
use crate::http::client::head::Head;
use crate::http::client::{Request, TransportError};

/// Size of one read.
pub(super) const CHUNK: u64 = 16 << 10;

/// A server with the file, and its faults.
#[derive(Debug, Clone)]
pub(super) struct ScriptedSource {
    pub(super) file: Bytes,
    /// Bytes per second.
    pub(super) rate: u64,
    /// A strong `ETag`.
    pub(super) etag: Option<&'static str>,
    /// The first answers, as status and further header lines, instead of the file.
    pub(super) refusals: Vec<(u16, &'static str)>,
    /// Number of bytes of each body after which the connection breaks.
    pub(super) breaks_after: Option<u64>,
    /// Position in the file behind which no byte is sent.
    pub(super) stalls_at: Option<u64>,
    /// Positions of wrong bytes.
    pub(super) wrong: Vec<u64>,
    pub(super) honours_ranges: bool,
}

impl ScriptedSource {
    pub(super) fn of(file: &Bytes) -> Self {
        Self {
            file: file.clone(),
            rate: 20 * MEGA,
            etag: Some("\"1\""),
            refusals: Vec::new(),
            breaks_after: None,
            stalls_at: None,
            wrong: Vec::new(),
            honours_ranges: true,
        }
    }
}

/// A request that a server received.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) server: usize,
    pub(super) at: Instant,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
}

/// Servers named by their numbers: `http://s0/f`.
#[derive(Default)]
pub(super) struct ScriptedNetwork {
    pub(super) servers: RefCell<Vec<ScriptedSource>>,
    pub(super) asked: RefCell<Vec<Asked>>,
    pub(super) sent: Rc<RefCell<HashMap<usize, u64>>>,
}

impl SendRequest for ScriptedNetwork {
    fn send(&self, request: Request) -> LocalBoxFuture<'static, Result<Box<dyn Response>, TransportError>> {
        let header = |name: &str| {
            let found = request.headers.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.clone())
        };
        let number: usize = request.url.host_str().unwrap().trim_start_matches('s').parse().unwrap();
        let (range, if_range) = (header("Range"), header("If-Range"));
        let asked =
            Asked { server: number, at: Instant::now(), range: range.clone(), if_range: if_range.clone() };
        self.asked.borrow_mut().push(asked);
        let mut servers = self.servers.borrow_mut();
        let server = &mut servers[number];
        let size = server.file.len() as u64;
        let etag = server.etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
        let is_same = if_range.is_none() || if_range.as_deref() == server.etag;
        let part = range.filter(|_| server.honours_ranges && is_same).map(|range| {
            let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            ByteRange::new(start.parse().unwrap(), end.parse().map_or(size, |last: u64| last + 1))
        });
        let (head, bytes) = if server.refusals.is_empty() {
            let bytes = part.unwrap_or(ByteRange::new(0, size));
            let first = match part {
                Some(part) => {
                    format!("206 Part\r\nContent-Range: bytes {}-{}/{size}", part.start, part.end - 1)
                }
                None => "200 OK".to_owned(),
            };
            (format!("HTTP/1.1 {first}\r\nContent-Length: {}\r\n{etag}\r\n", bytes.len()), bytes)
        } else {
            let (status, lines) = server.refusals.remove(0);
            (format!("HTTP/1.1 {status} No\r\n{lines}Content-Length: 0\r\n\r\n"), ByteRange::new(0, 0))
        };
        let head = Head::take(&mut BytesMut::from(head.as_str())).unwrap().unwrap();
        let answer = ScriptedAnswer {
            head,
            server: server.clone(),
            number,
            at: bytes.start,
            bytes,
            sent: Rc::clone(&self.sent),
        };
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(Box::new(answer) as Box<dyn Response>)
        }
        .boxed_local()
    }
}

struct ScriptedAnswer {
    head: Head,
    server: ScriptedSource,
    number: usize,
    at: u64,
    bytes: ByteRange,
    sent: Rc<RefCell<HashMap<usize, u64>>>,
}

impl Response for ScriptedAnswer {
    fn head(&self) -> &Head {
        &self.head
    }

    fn chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Bytes>, TransportError>> {
        async move {
            let breaks_at = self.server.breaks_after.map_or(u64::MAX, |after| self.bytes.start + after);
            let stalls_at = self.server.stalls_at.unwrap_or(u64::MAX);
            if self.at >= self.bytes.end {
                return Ok(None);
            }
            if self.at >= breaks_at {
                return Err(TransportError::EmptyReply);
            }
            if self.at >= stalls_at {
                std::future::pending::<()>().await;
            }
            let end = (self.at + CHUNK).min(self.bytes.end).min(breaks_at).min(stalls_at);
            let length = end - self.at;
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / self.server.rate as f64)).await;
            let mut bytes = self.server.file[self.at as usize..end as usize].to_vec();
            for wrong in self.server.wrong.iter().filter(|at| (self.at..end).contains(at)) {
                bytes[(wrong - self.at) as usize] ^= 1;
            }
            self.at = end;
            *self.sent.borrow_mut().entry(self.number).or_default() += length;
            Ok(Some(bytes.into()))
        }
        .boxed_local()
    }
}
