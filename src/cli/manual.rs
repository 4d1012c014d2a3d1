//! `fingerpost manual`: the man page and the shell completions, made from the command line's own definition.

use std::io;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

/// Flags of `fingerpost manual`.
#[derive(Debug, Clone, Args)]
pub struct ManualArguments {
    /// Which page to print
    #[arg(value_enum)]
    pub page: Page,
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
    pub fn print(&self) -> Result<(), io::Error> {
        let mut command = super::Cli::command();
        let shell = match self.page {
            Page::Man => return clap_mangen::Man::new(command).render(&mut io::stdout()),
            Page::Bash => Shell::Bash,
            Page::Fish => Shell::Fish,
            Page::Zsh => Shell::Zsh,
        };
        clap_complete::generate(shell, &mut command, "fingerpost", &mut io::stdout());
        Ok(())
    }
}
