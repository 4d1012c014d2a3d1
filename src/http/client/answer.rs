//! The answer to a request: its head, and its body as a stream.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use awc::ClientResponse;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use super::error::{BodyError, TransportError};
use super::exchange::Exchange;
use super::head::Head;

/// Counts an exchange until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Rc<Cell<usize>>);

impl Busy {
    pub(super) fn new(counter: &Rc<Cell<usize>>) -> Self {
        counter.set(counter.get().saturating_add(1));
        Self(Rc::clone(counter))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// An answer with its complete head; the body is a stream.
#[derive(Debug)]
pub struct Answer {
    /// The head of the answer.
    pub head: Head,
    /// Duration of connecting; `None` on a kept connection.
    pub connecting: Option<Duration>,
    /// Time from sending the request to the first byte of the answer.
    pub first_byte: Duration,
    /// `None` once the body is complete or has failed, because awc panics if it is polled again.
    pub(super) response: Option<ClientResponse>,
    /// Bytes that were read while the end of the body was searched.
    pub(super) peeked: Option<Bytes>,
    pub(super) exchange: Rc<Exchange>,
    pub(super) _busy: Busy,
}

impl Answer {
    /// The next bytes of the body, at least one. `None` once it is complete.
    ///
    /// A body that ends before its announced length or its last chunk is an error, never a normal end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        if let Some(bytes) = self.peeked.take() {
            return Ok(Some(bytes));
        }
        loop {
            let Some(response) = &mut self.response else {
                // This includes the error of a search for the end.
                return self.exchange.take_error().map_or(Ok(None), Err);
            };
            let item = response.next().await;
            match self.take(item)? {
                Some(bytes) if bytes.is_empty() => {}
                None => return Ok(None),
                Some(bytes) => {
                    self.peek();
                    return Ok(Some(bytes));
                }
            }
        }
    }

    /// If the body may be complete, lets awc find its end. The connection can then serve the next request even if the
    /// caller does not poll the body again.
    fn peek(&mut self) {
        if let (Some(response), true) = (&mut self.response, self.exchange.may_be_complete.get())
            && let Some(item) = response.next().now_or_never()
        {
            match self.take(item) {
                Ok(bytes) => self.peeked = bytes,
                // The next call of `chunk` returns the error.
                Err(error) => self.exchange.fail(error),
            }
        }
    }

    fn take(
        &mut self,
        item: Option<Result<Bytes, awc::error::PayloadError>>,
    ) -> Result<Option<Bytes>, TransportError> {
        match item {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(_)) => {
                self.response = None;
                // Without an error of the wire, awc's decoder of chunks has failed.
                Err(self.exchange.take_error().unwrap_or(TransportError::Body(BodyError::Chunk)))
            }
            None => {
                self.response = None;
                self.exchange.take_error().map_or(Ok(None), Err)
            }
        }
    }

    /// Ends the exchange. If the body is complete, the connection is kept for the next request; otherwise it is
    /// closed.
    pub fn finish(self) {}
}
