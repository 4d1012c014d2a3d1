//! The flags of `fingerpost status`.

use clap::Args;

use super::ConfigArguments;

const EXAMPLES: &str = "\
Examples:
  fingerpost status http://127.0.0.1:9100/
  fingerpost status --json http://127.0.0.1:9100/ | jq .backends

Exit codes: 0 success, 1 failure, 2 wrong flags";

/// Flags of `fingerpost status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArguments {
    /// Admin address that the balancer printed at its start [default: the key balancer.admin]
    #[arg(value_name = "ADDR")]
    pub admin: Option<String>,
    /// Print the JSON of the status API
    #[arg(long)]
    pub json: bool,
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
}
