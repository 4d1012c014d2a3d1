//! The flags of `fingerpost status`.

use clap::Args;

use super::ConfigArguments;

/// Flags of `fingerpost status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArguments {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The admin interface, as the balancer printed it, such as http://127.0.0.1:9100/ [default: the key
    /// balancer.admin]
    #[arg(value_name = "ADDR")]
    pub admin: Option<String>,
    /// Print the answer of the status API as it came
    #[arg(long)]
    pub json: bool,
}
