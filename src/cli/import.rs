//! The flags of `fingerpost import`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

const EXAMPLES: &str = "\
Examples:
  fingerpost import mirrorbits --config /etc/mirrorbits.conf >servers.txt
  fingerpost import mirrorbits --redis redis://127.0.0.1:6379/0
  mirrorbits export mirmon | fingerpost import mirrorbits --list /dev/stdin

The list goes to standard output, remarks to standard error; see
docs/migration.md. The password of Redis is the one in the file of
--config, or in the variable FINGERPOST__FLEET__PASSWORD.
Exit codes: 0 success, 1 failure, 2 wrong flags";

/// Flags of `fingerpost import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArguments {
    /// The other program: mirrorbits
    #[arg(value_name = "PROGRAM", value_parser = PossibleValuesParser::new(["mirrorbits"]), hide_possible_values = true)]
    program: String,
    /// Configuration of the other program [default: none]
    #[arg(long, value_name = "FILE", required_unless_present_any = ["redis", "list"])]
    pub config: Option<PathBuf>,
    /// Redis with the mirrors, redis://HOST:PORT/DATABASE [default: the one of the configuration]
    #[arg(long, value_name = "URL", conflicts_with = "list")]
    pub redis: Option<String>,
    /// Output of mirrorbits export mirmon instead of Redis [default: none]
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,
}
