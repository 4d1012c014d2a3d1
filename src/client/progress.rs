//! What a person sees: redirects and errors as they were received, and a progress bar on a terminal.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::event::{Event, Observer};

/// Where text for a person goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextStream {
    /// Standard output, where nothing else goes there.
    Output,
    /// Standard error, where standard output carries the file.
    Error,
}

/// Shows one download.
#[derive(Debug)]
pub struct Display {
    text: TextStream,
    bar: ProgressBar,
}

impl Display {
    /// A display whose bar is drawn on standard error, and only where that is a terminal.
    #[must_use]
    pub fn new(text: TextStream) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { text, bar }
    }

    fn print(&self, parts: &[&[u8]]) {
        // A reader that went away must not stop the download.
        let _ = match self.text {
            TextStream::Output => write(&mut io::stdout().lock(), parts),
            TextStream::Error => write(&mut io::stderr().lock(), parts),
        };
    }
}

impl Observer for Display {
    fn notice(&self, event: &Event<'_>) {
        match event {
            Event::Redirected { head, page, to } => {
                let line = format!("A new server address was received: {to}\n");
                self.print(&[head, page, ending(page), line.as_bytes()]);
            }
            Event::Refused { head, page } => self.print(&[head, page, ending(page)]),
            Event::Started { size, .. } => {
                let template = match size {
                    Some(_) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
                    None => "{spinner} {bytes} {bytes_per_sec}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.bar.set_style(style);
                }
                if let Some(size) = size {
                    self.bar.set_length(*size);
                }
            }
            Event::Received { bytes } => self.bar.inc(*bytes),
            Event::Finished { target, size } => {
                self.bar.finish_and_clear();
                if let Some(target) = target {
                    let line = format!("{} is complete, {size} bytes\n", target.display());
                    self.print(&[line.as_bytes()]);
                }
            }
        }
    }
}

/// What is missing for the next line to begin at the left.
fn ending(page: &[u8]) -> &'static [u8] {
    if page.last().is_none_or(|&last| last == b'\n') { b"" } else { b"\n" }
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

/// A server's text without what would command the terminal that shows it.
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
    fn a_server_cannot_command_the_terminal() {
        assert_eq!(harmless(b"a\r\n\x1b]0;title\x07b\tc\rd"), "a\n\u{fffd}]0;title\u{fffd}b\tc\u{fffd}d");
    }
}
