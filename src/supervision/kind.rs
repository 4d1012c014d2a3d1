//! The kinds of actors.

use std::fmt;
use std::str::FromStr;

use prometheus_client::encoding::EncodeLabelValue;

/// The kinds of supervised actors; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ActorKind {
    /// Probes one backend.
    Probe,
    /// Makes routing tables from probe results.
    Ranking,
    /// Holds the routing table of one HTTP worker.
    Redirect,
    /// Looks up the sizes of files.
    Size,
    /// Maintains the knowledge about the files of mirrors.
    Presence,
    /// Exchanges observations with other balancers.
    Fleet,
}

impl ActorKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Probe, Self::Ranking, Self::Redirect, Self::Size, Self::Presence, Self::Fleet];
}

impl fmt::Display for ActorKind {
    /// The name of the type of the actor.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}{}", if *self == Self::Redirect { "Handler" } else { "Actor" })
    }
}

impl FromStr for ActorKind {
    type Err = UnknownActor;

    fn from_str(name: &str) -> Result<Self, UnknownActor> {
        let is_named = |kind: &Self| format!("{kind:?}").to_lowercase() == name;
        Self::ALL.into_iter().find(is_named).ok_or(UnknownActor)
    }
}

/// No kind of actor has this name.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind of actor; the kinds are probe, ranking, redirect, size, presence and fleet")]
pub struct UnknownActor;
