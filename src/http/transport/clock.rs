//! The one timer of a connection, and what it is set for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// What a connection is given time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The next request; the number of answers tells whether there was one meanwhile.
    Idle { answers: u32 },
    /// The rest of a request head.
    Head,
    /// A tick in which the reader is to take something.
    Write { ticks: u32 },
    /// The moment from which the server's rate allows these bytes.
    Pace { bytes: usize },
    /// A step of the end of a connection.
    Linger,
}

/// A timer that is made when it is first needed and then used again, so that a connection whose heads come
/// whole sets it once in a keep-alive time and not for each request.
#[derive(Debug, Default)]
pub(super) struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    purpose: Option<Purpose>,
}

impl Clock {
    /// What the timer is set for.
    pub(super) fn purpose(&self) -> Option<Purpose> {
        self.purpose
    }

    /// Sets the timer anew; the task of `cx` is woken when the time is up.
    pub(super) fn set(&mut self, purpose: Purpose, duration: Duration, cx: &mut Context<'_>) {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(Instant::now() + duration);
                sleep
            }
            None => self.sleep.insert(Box::pin(sleep(duration))),
        };
        self.purpose = match sleep.as_mut().poll(cx) {
            Poll::Pending => Some(purpose),
            // A time of zero is up before it was set; the task looks again at once.
            Poll::Ready(()) => {
                cx.waker().wake_by_ref();
                Some(purpose)
            }
        };
    }

    /// What the time is up for, once.
    pub(super) fn expired(&mut self) -> Option<Purpose> {
        match &self.sleep {
            Some(sleep) if self.purpose.is_some() && sleep.is_elapsed() => self.purpose.take(),
            _ => None,
        }
    }
}
