//! The flags of `fingerpost server`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArguments, ListenArguments, overrides, path, text_path, time};
use crate::settings::Override;

/// Flags of `fingerpost server`; each overrides the key of the same name under `[server]`.
#[derive(Debug, Clone, Args)]
pub struct ServerArguments {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The folder whose files are served [default: files]
    #[arg(long, value_name = "DIR", value_parser = text_path())]
    pub root: Option<PathBuf>,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArguments,
    /// A folder of error pages that replace the built-in ones, such as 404.html
    #[arg(long, value_name = "DIR", value_parser = text_path())]
    pub pages: Option<PathBuf>,
    /// Memory for small files, such as 64MiB [default: 64MiB]
    #[arg(long, value_name = "BYTES")]
    pub cache_bytes: Option<bytesize::ByteSize>,
    /// Show what is in folders that have no index.html
    #[arg(long)]
    pub listing: bool,
    /// Send file.br, file.zst or file.gz beside a file to clients that want it
    #[arg(long)]
    pub precompressed: bool,
    /// SHA-256 of every file, sent as Repr-Digest: off, memory, or the file that keeps them [default: memory]
    #[arg(long, value_name = "FILE")]
    pub digests: Option<String>,
    /// Bytes a second that all clients have together, such as 10MiB; 0 for no limit [default: 0]
    #[arg(long, value_name = "BYTES")]
    pub limit_rate: Option<bytesize::ByteSize>,
    /// Where metrics and health are served [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// A file that gets a line for each answer [default: none]
    #[arg(long, value_name = "FILE", value_parser = text_path())]
    pub access_log: Option<PathBuf>,
    /// How long downloads may go on after a stop was asked for [default: 30s]
    #[arg(long, value_name = "D", value_parser = time())]
    pub drain_timeout: Option<String>,
}

impl ServerArguments {
    /// The settings these flags override.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        overrides! {
            "server.root" => path(self.root.as_ref()),
            "server.host" => self.listen.host,
            "server.port" => self.listen.port,
            "server.unix_socket" => path(self.listen.unix_socket.as_ref()),
            "server.pages" => path(self.pages.as_ref()),
            "server.workers" => self.listen.workers,
            "server.cache_bytes" => self.cache_bytes.map(|size| size.as_u64()),
            "server.listing" => self.listing.then_some(true),
            "server.precompressed" => self.precompressed.then_some(true),
            "server.digests" => self.digests,
            "server.limit_rate" => self.limit_rate.map(|size| size.as_u64()),
            "server.admin" => self.admin,
            "server.access_log" => path(self.access_log.as_ref()),
            "server.drain_timeout" => self.drain_timeout,
        }
    }
}
