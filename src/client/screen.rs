//! The output of all downloads of one run: progress bars, lines and reports.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::download::DownloadReport;
use super::report;
use super::settings::{Reports, Show, Text};
use crate::cli::ProgressMode;

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    pub(super) complete: usize,
    pub(super) failed: usize,
    /// Size of the complete files, in bytes.
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// Displays all downloads of one run.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) show: Show,
    pub(super) mode: ProgressMode,
    pub(super) bars: MultiProgress,
    /// Counts the files of a run with several files.
    pub(super) all: Option<ProgressBar>,
    report_error: RefCell<Option<io::Error>>,
}

impl Screen {
    pub(super) fn new(show: Show, files: usize) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let mode = match show.progress {
            Some(ProgressMode::Bar) if !is_terminal => ProgressMode::Plain,
            Some(mode) => mode,
            None if is_terminal => ProgressMode::Bar,
            None => ProgressMode::Plain,
        };
        let bars = MultiProgress::new();
        let all = (mode == ProgressMode::Bar && files > 1).then(|| {
            let bar = ProgressBar::new(files as u64);
            bars.add(styled(bar, "{pos} of {len} files {wide_bar} {eta} left"))
        });
        Self { show, mode, bars, all, report_error: RefCell::default() }
    }

    pub(super) fn reports(&self) -> Reports {
        self.show.reports
    }

    /// Prints the JSON object of one file. If that fails, the downloads continue, and the run ends with the error.
    pub(super) fn print_report(&self, report: &DownloadReport) {
        let line = report::line(report) + "\n";
        let printed = self.bars.suspend(|| write(&mut io::stdout().lock(), &[line.as_bytes()]));
        if let Err(error) = printed {
            self.report_error.borrow_mut().get_or_insert(error);
        }
    }

    /// The first error of standard output that lost a report.
    pub(super) fn take_report_error(&self) -> Option<io::Error> {
        self.report_error.take()
    }

    pub(super) fn print_error(&self, line: &str) {
        self.bars.suspend(|| {
            let _ = write(&mut io::stderr().lock(), &[line.as_bytes(), b"\n"]);
        });
    }

    /// Adds files that were not known at the start.
    pub(super) fn expect(&self, files: usize) {
        if let Some(all) = &self.all {
            all.inc_length(files as u64);
        }
    }

    /// Ends the display, with a summary if there are several files.
    pub(super) fn close(&self, ended: Ended) {
        if let Some(all) = &self.all {
            all.finish_and_clear();
        }
        let is_shown = matches!(self.mode, ProgressMode::Bar | ProgressMode::Plain);
        if is_shown && ended.complete + ended.failed > 1 {
            let failed = match ended.failed {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            let (files, bytes) = (ended.complete, ByteSize(ended.bytes));
            self.print_error(&format!(
                "{files} files complete, {bytes} in {:.1} s{failed}",
                ended.took.as_secs_f64()
            ));
        }
    }

    pub(super) fn print_text(&self, parts: &[&[u8]]) {
        self.bars.suspend(|| {
            let _ = match self.show.text {
                Text::Output => write(&mut io::stdout().lock(), parts),
                Text::Error => write(&mut io::stderr().lock(), parts),
                Text::Nowhere => Ok(()),
            };
        });
    }
}

pub(super) fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn write(stream: &mut (impl Write + IsTerminal), parts: &[&[u8]]) -> io::Result<()> {
    let is_terminal = stream.is_terminal();
    for part in parts {
        if is_terminal {
            stream.write_all(harmless(part).as_bytes())?;
        } else {
            stream.write_all(part)?;
        }
    }
    stream.flush()
}

/// Removes control characters, with which a server could send commands to the terminal.
fn harmless(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .replace("\r\n", "\n")
        .chars()
        .map(|character| match character {
            '\n' | '\t' => character,
            _ if character.is_control() => '\u{fffd}',
            _ => character,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_server_do_not_reach_the_terminal() {
        assert_eq!(harmless(b"a\r\n\x1b]0;title\x07b\tc\rd"), "a\n\u{fffd}]0;title\u{fffd}b\tc\u{fffd}d");
    }
}
