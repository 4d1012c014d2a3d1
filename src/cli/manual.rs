//! `fingerpost manual`: the man page and the shell completions, generated from the definition of the command line.

use std::io;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::telemetry::{self, OutputError};

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

/// An error of `fingerpost manual` or `fingerpost help`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManualError {
    /// The command does not exist.
    #[error("unknown command {0}; `fingerpost --help` lists the commands")]
    UnknownCommand(String),
    /// Completions cannot be printed for one command.
    #[error("the completions of a shell always cover all commands; leave out {0}")]
    CompletionsOfOneCommand(String),
    /// The page cannot be made.
    #[error("cannot make the man page")]
    Rendering(#[from] io::Error),
    /// The page cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
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
    pub(crate) fn print(&self) -> Result<(), ManualError> {
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
            (Some(_), Some(name)) => return Err(ManualError::CompletionsOfOneCommand(name.clone())),
            (None, None) => clap_mangen::Man::new(command).render(&mut text)?,
            (None, Some(name)) => {
                let own = command.find_subcommand(name).cloned();
                let own = own.ok_or_else(|| ManualError::UnknownCommand(name.clone()))?;
                clap_mangen::Man::new(own).render(&mut text)?;
            }
        }
        Ok(telemetry::print(&text)?)
    }
}
