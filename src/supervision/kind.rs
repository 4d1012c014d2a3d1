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
}

impl ActorKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Probe, Self::Ranking, Self::Redirect];
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

/// No kind of actor has this name.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind of actor; the kinds are probe, ranking and redirect")]
pub struct UnknownActor;
