//! Where others reach an actor that may be recreated.

use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;

/// The stable place of an actor that may be recreated: messages go to whoever sits there now.
pub struct Seat<A: Actor> {
    pub(super) occupant: Arc<ArcSwapOption<Addr<A>>>,
}

impl<A: Actor> Clone for Seat<A> {
    fn clone(&self) -> Self {
        Self { occupant: Arc::clone(&self.occupant) }
    }
}

impl<A: Actor> Default for Seat<A> {
    fn default() -> Self {
        Self { occupant: Arc::default() }
    }
}

/// Why a message did not reach an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The actor is dead and not recreated yet.
    Vacant,
    /// Its mailbox is full.
    Full,
}

impl<A: Actor> Seat<A> {
    /// Seats a new actor; messages go to it from now on.
    pub(super) fn take(&self, address: Addr<A>) {
        self.occupant.store(Some(Arc::new(address)));
    }

    /// Sends without waiting. The message is lost when the seat is vacant or the mailbox full.
    pub fn try_send<M>(&self, message: M) -> Result<(), Undelivered>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let occupant = self.occupant.load();
        let address = occupant.as_ref().ok_or(Undelivered::Vacant)?;
        address.try_send(message).map_err(|error| match error {
            actix::prelude::SendError::Full(_) => Undelivered::Full,
            actix::prelude::SendError::Closed(_) => Undelivered::Vacant,
        })
    }
}

impl<A: Actor> Seat<A> {
    /// This seat as an outlet for one kind of message.
    #[must_use]
    pub fn outlet<M>(&self) -> Outlet<M>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let seat = self.clone();
        Arc::new(move |message| seat.try_send(message))
    }
}

/// Where a component sends its messages; tests put another end there than a [`Seat`].
pub type Outlet<M> = Arc<dyn Fn(M) -> Result<(), Undelivered> + Send + Sync>;
