//! `fingerpost manual`: the man page and the shell completions, generated from the definition of the command line.

use std::error::Error;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::telemetry;

const EXAMPLES: &str = "\
Examples:
  fingerpost manual man | man -l -          the man page
  fingerpost manual man get | man -l -      the man page of one command
  fingerpost manual bash > /etc/bash_completion.d/fingerpost

Exit codes: 0 success, 1 failure, 2 wrong flags";

/// Flags of `fingerpost manual`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManualArguments {
    /// Man page or completions
    #[arg(value_enum)]
    pub page: ManualPage,
    /// Command of the man page, such as get [default: all commands]
    pub command: Option<String>,
}

/// An output of `fingerpost manual`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManualPage {
    /// The man page, in roff.
    Man,
    /// Completions of bash.
    Bash,
    /// Completions of fish.
    Fish,
    /// Completions of zsh.
    Zsh,
}

impl ManualArguments {
    /// Writes the page to standard output.
    pub(crate) fn print(&self) -> Result<(), Box<dyn Error>> {
        let mut command = super::Cli::command();
        // Copies the global flags into each command.
        command.build();
        let mut text = Vec::new();
        let shell = match self.page {
            ManualPage::Man => None,
            ManualPage::Bash => Some(Shell::Bash),
            ManualPage::Fish => Some(Shell::Fish),
            ManualPage::Zsh => Some(Shell::Zsh),
        };
        match (shell, &self.command) {
            (Some(shell), None) => clap_complete::generate(shell, &mut command, "fingerpost", &mut text),
            (Some(_), Some(name)) => {
                return Err(format!(
                    "the completions of a shell always cover all commands; leave out {name}"
                )
                .into());
            }
            (None, None) => clap_mangen::Man::new(command).render(&mut text)?,
            (None, Some(name)) => {
                let own = command.find_subcommand(name).cloned();
                let own = own.ok_or_else(|| unknown_command(name))?;
                clap_mangen::Man::new(own).render(&mut text)?;
            }
        }
        Ok(telemetry::print(&text)?)
    }
}

pub(super) fn unknown_command(name: &str) -> String {
    format!("unknown command {name}; `fingerpost --help` lists the commands")
}
