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
    /// Counts downloads.
    Statistics,
    /// Exchanges observations with other balancers.
    Fleet,
}

impl ActorKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Probe,
        Self::Ranking,
        Self::Redirect,
        Self::Size,
        Self::Presence,
        Self::Statistics,
        Self::Fleet,
    ];
}

impl fmt::Display for ActorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Probe => "ProbeActor",
            Self::Ranking => "RankingActor",
            Self::Redirect => "RedirectHandler",
            Self::Size => "SizeActor",
            Self::Presence => "PresenceActor",
            Self::Statistics => "StatisticsActor",
            Self::Fleet => "FleetActor",
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
            "size" => Ok(Self::Size),
            "presence" => Ok(Self::Presence),
            "statistics" => Ok(Self::Statistics),
            "fleet" => Ok(Self::Fleet),
            _ => Err(UnknownActor),
        }
    }
}

/// No kind of actor has this name.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown kind of actor; the kinds are probe, ranking, redirect, size, presence, statistics and fleet"
)]
pub struct UnknownActor;
