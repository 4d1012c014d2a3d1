//! `[server]`: raw as read, and validated.

use serde::Deserialize;

/// The keys of `[server]`; `config/default.toml` explains each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml has one comment for each key, and is their one source")]
pub struct RawServerSettings {
    pub root: std::path::PathBuf,
    pub host: String,
    pub port: u16,
    pub pages: String,
    pub workers: usize,
}
