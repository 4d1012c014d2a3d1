//! `[balancer]`: raw as read, and validated.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The keys of `[balancer]`; `config/default.toml` explains each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml has one comment for each key, and is their one source")]
pub struct RawBalancerSettings {
    pub servers: PathBuf,
    pub host: String,
    pub port: u16,
    pub admin: String,
    pub workers: usize,
    pub status: u16,
    pub policy: String,
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
    pub probe_path: String,
    pub probe_concurrency: usize,
    pub fall: u32,
    pub rise: u32,
    #[serde(with = "humantime_serde")]
    pub probe_backoff_max: Duration,
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}
