//! The rule that combines the own health of a backend with the observations of the other balancers of a fleet. Pure.

use std::time::Duration;

use super::State;

/// The smallest share of its weight that a usable backend keeps if most observers do not see it up. With a smaller one, a
/// false observation could exclude it.
const LEAST_SHARE: f64 = 0.25;

/// The observations of the other balancers of one backend, as far as they count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SharedEvidence {
    /// The observers that see it up.
    pub up: u16,
    /// The observers at which it has failed fewer than `fall` times.
    pub suspect: u16,
    /// The observers that see it down.
    pub down: u16,
    /// The response time that one of them measured.
    pub response_time: Option<Duration>,
    /// The part of the own probes in the decision.
    pub own_view: OwnView,
}

/// The part of the own probes in a decision; the same for all backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnView {
    /// No other balancer is known: they decide alone.
    #[default]
    Alone,
    /// They and the observations of the others count.
    Trusted,
    /// This balancer sees far less than the others, so silence is no evidence against a backend that they see.
    SetAside,
    /// This balancer reaches neither the engine nor a backend, so it keeps the backends that it had.
    CutOff,
}

impl SharedEvidence {
    fn observers(self) -> u16 {
        self.up.saturating_add(self.suspect).saturating_add(self.down)
    }

    /// Whether more than half of the observers see it up.
    #[must_use]
    pub fn is_seen_by_most(self) -> bool {
        u32::from(self.up) * 2 > u32::from(self.observers())
    }

    /// The observers that see the backend up, and all observers, with this balancer if it has probed the backend; `None`
    /// without other observers.
    #[must_use]
    pub fn seen_by(self, own: State) -> Option<(u16, u16)> {
        let is_own_up = u16::from(own == State::Up);
        let is_own = u16::from(own != State::Unknown);
        let all = self.observers();
        (all > 0).then_some((self.up.saturating_add(is_own_up), all.saturating_add(is_own)))
    }

    /// The state of a backend: the own one, or that of the others if no own probe has ended. Without own evidence, it is up
    /// if one observer sees it up, and down only if all agree.
    #[must_use]
    pub fn state(self, own: State) -> State {
        match own {
            State::Unknown if self.up > 0 => State::Up,
            State::Unknown if self.suspect > 0 => State::Suspect,
            State::Unknown if self.down > 0 => State::Down,
            own => own,
        }
    }

    /// The share of its weight with which a backend is usable; `None` if it is not usable. `is_silent` is whether it was
    /// up, and has given no answer at all since.
    ///
    /// A backend that fails the own probes is never usable, except a silent one while this balancer is set aside or cut off.
    #[must_use]
    pub fn share(self, own: State, is_silent: bool) -> Option<f64> {
        match (self.state(own), self.own_view) {
            (State::Up, _) => {
                let (up, all) = self.seen_by(own).unwrap_or((1, 1));
                Some((f64::from(up) / f64::from(all)).max(LEAST_SHARE))
            }
            (_, OwnView::SetAside) if is_silent && self.is_seen_by_most() => Some(1.0),
            (_, OwnView::CutOff) if is_silent => Some(1.0),
            _ => None,
        }
    }
}
