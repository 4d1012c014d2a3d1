//! The kinds of actors there are.

use std::fmt;
use std::str::FromStr;

use prometheus_client::encoding::EncodeLabelValue;

/// The kinds of actors that are watched; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ActorKind {
    /// Probes one backend.
    Probe,
    /// Folds probe results into routing tables.
    Ranking,
    /// Holds the routing table of one HTTP worker.
    Redirect,
}

impl fmt::Display for ActorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Probe => "ProbeActor",
            Self::Ranking => "RankingActor",
            Self::Redirect => "RedirectHandler",
        })
    }
}

impl FromStr for ActorKind {
    type Err = UnknownActor;

    fn from_str(name: &str) -> Result<Self, UnknownActor> {
        match name {
            "probe" => Ok(Self::Probe),
            "ranking" => Ok(Self::Ranking),
            "redirect" => Ok(Self::Redirect),
            _ => Err(UnknownActor),
        }
    }
}

/// There is no kind of actor of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no such actor; known are probe, ranking and redirect")]
pub struct UnknownActor;
