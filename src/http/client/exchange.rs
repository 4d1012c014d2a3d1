//! One request and its response, as the caller, the dialer and the wire see it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::dial::HttpOrigin;
use super::error::TransportError;
use super::head::Head;
use super::proxy::Route;

tokio::task_local! {
    /// The exchange for which awc requests a connection from its pool, and the dialer opens one.
    static EXCHANGE: Rc<Exchange>;
}

/// Whether a pooled connection may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    Allowed,
    /// Pooled connections are closed, because one of them has just failed.
    Refused,
}

/// The state of one request and its response, shared by the caller, the dialer and the [`Wire`].
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) origin: HttpOrigin,
    pub(super) route: Route,
    pub(super) reuse: Reuse,
    pub(super) is_head_request: bool,
    /// Maximum number of bytes in one read of a body.
    pub(super) read_size: usize,
    /// Duration of connecting; `None` on a kept connection.
    pub(super) connecting: Cell<Option<Duration>>,
    pub(super) is_kept: Cell<bool>,
    pub(super) sent_at: Cell<Option<Instant>>,
    /// Time from sending the request to the first byte of the response.
    pub(super) first_byte: Cell<Option<Duration>>,
    /// Whether awc has all bytes of the body, as far as the wire knows, so that finding the end needs no further
    /// read.
    pub(super) may_be_complete: Cell<bool>,
    pub(super) head: RefCell<Option<Head>>,
    error: RefCell<Option<TransportError>>,
}

impl Exchange {
    pub(super) fn new(
        origin: HttpOrigin,
        route: Route,
        reuse: Reuse,
        is_head_request: bool,
        read_size: usize,
    ) -> Self {
        Self {
            origin,
            route,
            reuse,
            is_head_request,
            read_size,
            connecting: Cell::new(None),
            is_kept: Cell::new(false),
            sent_at: Cell::new(None),
            first_byte: Cell::new(None),
            may_be_complete: Cell::new(false),
            head: RefCell::new(None),
            error: RefCell::new(None),
        }
    }

    /// Runs `future`, in which awc sends the request, as part of this exchange.
    pub(super) fn scope<F: Future>(self: &Rc<Self>, future: F) -> impl Future<Output = F::Output> {
        EXCHANGE.scope(Rc::clone(self), future)
    }

    /// The exchange of the current task.
    pub(super) fn current() -> Option<Rc<Self>> {
        EXCHANGE.try_with(Rc::clone).ok()
    }

    /// Stores the error, which awc's own error would hide.
    pub(super) fn fail(&self, error: TransportError) {
        self.error.replace(Some(error));
    }

    pub(super) fn take_error(&self) -> Option<TransportError> {
        self.error.take()
    }

    pub(super) fn take_head(&self) -> Option<Head> {
        self.head.take()
    }
}
