//! `fingerpost manual`: the man page and the shell completions, made from the command line's own definition.

use std::io;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::telemetry::{self, OutputError};

/// Flags of `fingerpost manual`.
#[derive(Debug, Clone, Args)]
pub struct ManualArguments {
    /// Which page to print
    #[arg(value_enum)]
    pub page: Page,
    /// The command whose man page is wanted, such as get [default: that of all commands]
    pub command: Option<String>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ManualError {
    /// There is no such command.
    #[error("there is no command {0}; `fingerpost --help` names them all")]
    NoCommand(String),
    /// Completions are those of all commands.
    #[error("the completions of a shell are those of all commands; leave out {0}")]
    NotOfOne(String),
    /// The page cannot be made.
    #[error("cannot make the man page")]
    Rendering(#[from] io::Error),
    /// The page cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// What `fingerpost manual` can print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Page {
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
    pub fn print(&self) -> Result<(), ManualError> {
        let mut command = super::Cli::command();
        // Carries name and flags of the whole into each part.
        command.build();
        let mut text = Vec::new();
        let shell = match self.page {
            Page::Man => None,
            Page::Bash => Some(Shell::Bash),
            Page::Fish => Some(Shell::Fish),
            Page::Zsh => Some(Shell::Zsh),
        };
        match (shell, &self.command) {
            (Some(shell), None) => clap_complete::generate(shell, &mut command, "fingerpost", &mut text),
            (Some(_), Some(name)) => return Err(ManualError::NotOfOne(name.clone())),
            (None, None) => clap_mangen::Man::new(command).render(&mut text)?,
            (None, Some(name)) => {
                let own = command.find_subcommand(name).cloned();
                let own = own.ok_or_else(|| ManualError::NoCommand(name.clone()))?;
                clap_mangen::Man::new(own).render(&mut text)?;
            }
        }
        Ok(telemetry::print(&text)?)
    }
}
