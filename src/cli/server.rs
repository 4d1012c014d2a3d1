//! The flags of `fingerpost server`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArguments, LISTENING, ListenArguments, overrides, path, path_list, text_path, time};
use crate::settings::Override;

const EXAMPLES: &str = "\
Examples:
  fingerpost server                     the folder ./files at a free port
  fingerpost server --root /srv/files --port 8081
  fingerpost check server               report all problems of a start

Files are served at /name and at /files/name. The first SIGTERM or Ctrl-C
waits for downloads, the second one ends the server at once.
Exit codes: 0 stopped, 1 failure, 2 wrong flags";

const FILES: &str = "Files";
const CLIENTS: &str = "Clients";
const FLEET: &str = "Registration";

/// Flags of `fingerpost server`; each overrides the key of the same name under `[server]`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArguments {
    /// Folder whose files are served [default: files]
    #[arg(long, value_name = "DIR", value_parser = text_path(), help_heading = FILES)]
    pub root: Option<PathBuf>,
    /// The address.
    #[command(flatten)]
    pub listen: ListenArguments,
    /// Folder of error pages, such as 404.html, that replace the built-in ones
    #[arg(long, value_name = "DIR", value_parser = text_path(), help_heading = FILES)]
    pub pages: Option<PathBuf>,
    /// Memory for small files [default: 64MiB]
    #[arg(long, value_name = "BYTES", help_heading = FILES, hide_short_help = true)]
    pub cache_bytes: Option<bytesize::ByteSize>,
    /// List the content of folders that have no index.html
    #[arg(long, help_heading = FILES)]
    pub listing: bool,
    /// Send file.br, file.zst or file.gz beside a file to clients that accept the coding
    #[arg(long, help_heading = FILES, hide_short_help = true)]
    pub precompressed: bool,
    /// SHA-256 of every file, sent as Repr-Digest: off, memory, or the file that stores them [default: memory]
    #[arg(long, value_name = "FILE", help_heading = FILES, hide_short_help = true)]
    pub digests: Option<String>,
    /// Maximum bytes per second over all clients, such as 10MiB; 0 is no limit [default: 0]
    #[arg(long, value_name = "BYTES", help_heading = CLIENTS)]
    pub limit_rate: Option<bytesize::ByteSize>,
    /// Address of metrics and health [default: none]
    #[arg(long, value_name = "ADDR", help_heading = LISTENING)]
    pub admin: Option<String>,
    /// File that gets a line for each answer [default: none]
    #[arg(long, value_name = "FILE", value_parser = text_path(), help_heading = CLIENTS)]
    pub access_log: Option<PathBuf>,
    /// Time limit for downloads after the first SIGTERM [default: 30s]
    #[arg(long, value_name = "D", value_parser = time(), help_heading = CLIENTS)]
    pub drain_timeout: Option<String>,
    /// Redis or Valkey in which this server registers, so that balancers find it, such as redis://host:6379 [default: none]
    #[arg(long, value_name = "URL", requires = "advertise", help_heading = FLEET)]
    pub register: Option<String>,
    /// URL at which clients reach this server; port 0 becomes its port
    #[arg(long, value_name = "URL", help_heading = FLEET)]
    pub advertise: Option<String>,
    /// Weight with which it registers [default: 1]
    #[arg(long, value_name = "N", help_heading = FLEET)]
    pub weight: Option<u32>,
    /// Tier with which it registers; the lowest is used first [default: 0]
    #[arg(long, value_name = "N", help_heading = FLEET)]
    pub tier: Option<u8>,
    /// Zone with which it registers [default: none]
    #[arg(long, value_name = "NAME", help_heading = FLEET)]
    pub zone: Option<String>,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
}

impl ServerArguments {
    /// The settings that these flags override.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        overrides! {
            "server.root" => path(self.root.as_ref()),
            "server.host" => self.listen.host,
            "server.port" => self.listen.port,
            "server.unix_socket" => path(self.listen.unix_socket.as_ref()),
            "server.tls_cert" => path_list(&self.listen.tls_cert),
            "server.tls_key" => path_list(&self.listen.tls_key),
            "server.tls_port" => self.listen.tls_port,
            "server.admin_tls" => self.listen.admin_tls.then_some(true),
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
            "server.register" => self.register,
            "server.advertise" => self.advertise,
            "server.weight" => self.weight,
            "server.tier" => self.tier,
            "server.zone" => self.zone,
        }
    }
}
