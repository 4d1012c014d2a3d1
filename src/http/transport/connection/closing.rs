//! The end of an answer, and that of a connection.

use std::io;
use std::task::{Context, Poll};

use super::super::ending::Ending;
use super::super::head::HeadScan;
use super::super::link::{Completion, Stage};
use super::Connection;

/// What leaves at once and has nothing of its own to wait for (RFC 6928): a reset that the kernel sends on a close with
/// unread input comes after it. Of more, a part may still be in the kernel, which the reset throws away.
const AT_ONCE: u64 = 14 << 10;

impl Connection {
    pub(super) fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.ending {
            Some(ending) => ending.poll(&mut self.stream, &mut self.clock, cx, &self.link),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Whether the connection ends rather than wait for a request. One that has not asked for anything yet, and
    /// may be a probe that is to hear of the drain, is waited for until the stop itself.
    pub(super) fn is_to_close(&self) -> bool {
        let worker = &self.link.worker;
        self.link.stage.get() == Stage::Idle
            && (worker.is_stopping.get() || (worker.is_draining.get() && self.answers > 0))
    }

    /// The answer is out: what came meanwhile is looked at now.
    pub(super) fn end_answer(&mut self, cx: &mut Context<'_>) {
        self.answers = self.answers.wrapping_add(1);
        self.link.end_answer(Completion::Whole);
        self.stall = None;
        self.is_head_whole = false;
        self.scan = HeadScan::default();
        self.line.clear();
        if self.link.has_request_body.get() {
            self.link.stage.set(Stage::Ended);
            self.ending = Some(Ending::after_answer(&self.link.worker.connections));
            // The dispatcher waits for the body until it hears of the end.
            cx.waker().wake_by_ref();
            return;
        }
        self.link.stage.set(Stage::Idle);
        if std::mem::take(&mut self.is_input_waiting) || !self.ahead.is_empty() || self.link.is_draining() {
            cx.waker().wake_by_ref();
        }
    }

    /// Makes the close wait for what the other end has not taken yet, where that could be lost. A connection that sent
    /// little and has nothing to read costs no look at the kernel.
    pub(super) fn linger_if_needed(&mut self, cx: &mut Context<'_>) {
        if self.ending.is_some() {
            return;
        }
        let is_at_risk = self.link.sent() > AT_ONCE || self.stream.poll_readable(cx).is_ready();
        if is_at_risk && self.stream.unacknowledged() != Some(0) {
            self.link.stage.set(Stage::Ended);
            self.ending = Some(Ending::after_answer(&self.link.worker.connections));
        }
    }
}
