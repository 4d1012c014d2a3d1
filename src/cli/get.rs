//! The flags of `fingerpost get`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `fingerpost get`.
#[derive(Debug, Clone, Args)]
pub struct GetArguments {
    /// What to download, such as http://127.0.0.1:8080/plshelp.txt
    #[arg(value_name = "URL")]
    pub url: String,
    /// Write to this file instead of one named like the last part of the URL
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
