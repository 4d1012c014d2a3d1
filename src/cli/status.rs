//! The flags of `fingerpost status`.

use clap::Args;

use super::AdminArguments;

const EXAMPLES: &str = "\
Examples:
  fingerpost status http://127.0.0.1:9100/
  fingerpost status --watch http://127.0.0.1:9100/
  fingerpost status --fleet http://127.0.0.1:9100/
  fingerpost status --json http://127.0.0.1:9100/ | jq .backends

Exit codes: 0 success, 1 failure, 2 wrong flags";

/// Flags of `fingerpost status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArguments {
    /// Admin address that the balancer printed at its start, like --admin
    #[arg(value_name = "ADDR")]
    pub address: Option<String>,
    /// Print the servers again every second, faults at the top, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Print the balancers of the fleet instead of the servers
    #[arg(long, conflicts_with = "watch")]
    pub fleet: bool,
    /// The balancer.
    #[command(flatten)]
    pub admin: AdminArguments,
}
