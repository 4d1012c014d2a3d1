//! Output of one download for users: redirects and errors as received, and the progress.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::ProgressBar;
use tokio::time::Instant;

use super::download::{DownloadJob, FileOrigin};
use super::event::{Event, Observer, WaitStep};
use super::screen::{Screen, styled};
use super::settings::Explanations;
use super::sink::MAX_SMALL;
use crate::cli::ProgressMode;

/// Minimum interval between two plain lines of one file.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Minimum interval between two JSON objects of one file.
const JSON_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum number of rows for the sources of one file.
const MAX_ROWS: usize = 8;

/// Displays one download.
#[derive(Debug)]
pub(super) struct FileDisplay<'a> {
    screen: &'a Screen,
    name: String,
    bar: RefCell<Option<ProgressBar>>,
    countdown: RefCell<Option<ProgressBar>>,
    /// One row for each source.
    rows: RefCell<HashMap<usize, ProgressBar>>,
    /// Sources that were chosen before the file had a bar, with their addresses.
    early_rows: RefCell<Vec<(usize, String)>>,
    received: Cell<u64>,
    size: Cell<Option<u64>>,
    done: Cell<u64>,
    started: Instant,
    last_line: Cell<Instant>,
    has_shown_redirect: Cell<bool>,
}

impl<'a> FileDisplay<'a> {
    /// Starts the display of one file.
    pub(super) fn new(screen: &'a Screen, job: &DownloadJob) -> Self {
        let name = match &job.origin {
            FileOrigin::Address(url) => super::naming::from_url(url),
            FileOrigin::Mirrors { name, .. } => name.display().to_string(),
        };
        Self {
            screen,
            name,
            bar: RefCell::new(None),
            countdown: RefCell::new(None),
            rows: RefCell::default(),
            early_rows: RefCell::default(),
            received: Cell::new(0),
            size: Cell::new(None),
            done: Cell::new(0),
            started: Instant::now(),
            last_line: Cell::new(Instant::now()),
            has_shown_redirect: Cell::new(false),
        }
    }

    fn explain(&self, line: &str) {
        if self.screen.show.explanations == Explanations::Shown {
            self.screen.print_error(&format!("* {line}"));
        }
    }

    fn begin(&self, size: Option<u64>, done: u64) {
        self.size.set(size);
        self.done.set(done);
        let is_one_of_many = self.screen.all.is_some() && size.is_some_and(|size| size <= MAX_SMALL as u64);
        // Bars for thousands of small files would cost more than the downloads.
        if self.screen.mode != ProgressMode::Bar || is_one_of_many {
            return;
        }
        let bar = match size {
            Some(size) => styled(
                ProgressBar::new(size),
                "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            ),
            None => styled(ProgressBar::new_spinner(), "{msg} {spinner} {bytes} {bytes_per_sec}"),
        };
        let bar = self.screen.bars.add(bar.with_message(self.name.clone()));
        bar.set_position(done);
        bar.reset_eta();
        *self.bar.borrow_mut() = Some(bar);
        for (source, address) in self.early_rows.take() {
            self.add_row(source, &address);
        }
    }

    /// Shows a countdown on a terminal, one line elsewhere.
    fn wait(&self, left: Duration, step: WaitStep) {
        let seconds = left.as_secs_f64().round();
        let line = format!("No server is available; asking again in {seconds} s");
        match (self.screen.mode, step) {
            (ProgressMode::Bar, _) => {
                let mut countdown = self.countdown.borrow_mut();
                let new = || self.screen.bars.add(styled(ProgressBar::new_spinner(), "{msg}"));
                let bar = countdown.get_or_insert_with(new);
                bar.set_message(line);
            }
            (ProgressMode::None, _) | (_, WaitStep::Further) => {}
            (ProgressMode::Json, WaitStep::First) => {
                let object = serde_json::json!({ "file": self.name, "asking_again_in": seconds });
                self.screen.print_error(&object.to_string());
            }
            (ProgressMode::Plain, WaitStep::First) => self.screen.print_error(&line),
        }
    }

    fn stop_countdown(&self) {
        if let Some(bar) = self.countdown.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn advance(&self, source: usize, bytes: u64) {
        self.received.set(self.received.get().saturating_add(bytes));
        match self.screen.mode {
            ProgressMode::Bar => {
                if let Some(bar) = &*self.bar.borrow() {
                    bar.inc(bytes);
                }
                if let Some(row) = self.rows.borrow().get(&source) {
                    row.inc(bytes);
                }
            }
            ProgressMode::Plain if self.is_due(PLAIN_INTERVAL) => self.print_plain_line(),
            ProgressMode::Json if self.is_due(JSON_INTERVAL) => {
                let object = serde_json::json!({
                    "file": self.name,
                    "done": self.present(),
                    "size": self.size.get(),
                    "bytes_per_second": self.rate(),
                });
                self.screen.print_error(&object.to_string());
            }
            _ => {}
        }
    }

    fn is_due(&self, interval: Duration) -> bool {
        let now = Instant::now();
        let is_due = now.duration_since(self.last_line.get()) >= interval;
        if is_due {
            self.last_line.set(now);
        }
        is_due
    }

    fn present(&self) -> u64 {
        self.done.get().saturating_add(self.received.get())
    }

    fn rate(&self) -> u64 {
        (self.received.get() as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn print_plain_line(&self) {
        let (present, rate) = (self.present(), self.rate());
        let mut line = format!("{}: {}", self.name, ByteSize(present));
        if let Some(size) = self.size.get() {
            let left = size.saturating_sub(present) / rate.max(1);
            let _ = write!(line, " of {}, {}/s, {left} s left", ByteSize(size), ByteSize(rate));
        }
        self.screen.print_error(&line);
    }

    fn add_row(&self, source: usize, address: &str) {
        let mut rows = self.rows.borrow_mut();
        let Some(bar) = &*self.bar.borrow() else {
            let mut early = self.early_rows.borrow_mut();
            if early.len() < MAX_ROWS {
                early.push((source, address.to_owned()));
            }
            return;
        };
        if rows.contains_key(&source) || rows.len() >= MAX_ROWS {
            return;
        }
        let row = styled(ProgressBar::new_spinner(), "  {msg} {bytes} {bytes_per_sec}");
        let row = self.screen.bars.insert_after(bar, row.with_message(address.to_owned()));
        rows.insert(source, row);
    }

    /// Called when the network transfer is complete. With several files, a file that waits for the disk has
    /// no bar.
    pub(super) fn transfer_ended(&self) {
        if self.screen.all.is_some() {
            self.clear();
        }
    }

    fn clear(&self) {
        for (_, row) in self.rows.borrow_mut().drain() {
            row.finish_and_clear();
        }
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for FileDisplay<'_> {
    fn drop(&mut self) {
        self.stop_countdown();
        self.clear();
        if let Some(all) = &self.screen.all {
            all.inc(1);
        }
    }
}

impl Observer for FileDisplay<'_> {
    fn notice(&self, event: &Event<'_>) {
        if !matches!(event, Event::Waiting { .. }) {
            self.stop_countdown();
        }
        match event {
            Event::Redirected { page, to } => {
                let line = format!("A new server address was received: {to}\n");
                // Later redirects of a balancer resemble the first one, so only their target is shown.
                if self.has_shown_redirect.replace(true) {
                    self.screen.print_text(&[line.as_bytes()]);
                } else {
                    self.screen.print_text(&[&page.head, &page.body, ending(&page.body), line.as_bytes()]);
                }
            }
            Event::Refused { page } => self.screen.print_text(&[&page.head, &page.body, ending(&page.body)]),
            Event::Waiting { left, step } => self.wait(*left, *step),
            Event::Unchecked { kinds } => {
                let line = format!(
                    "Warning: {} is not verified, because its digests are of unsupported kinds: {kinds}",
                    self.name
                );
                self.screen.print_error(&line);
            }
            Event::Offered { source, url } => self.explain(&format!("server {source} offered: {url}")),
            Event::Chosen { source, url, range } => {
                let bytes = match range.end {
                    u64::MAX => format!("from {}", range.start),
                    end => format!("{} to {end}", range.start),
                };
                self.explain(&format!("server {source} chosen for bytes {bytes}: {url}"));
                let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
                self.add_row(*source, &format!("{host}:{}", port.unwrap_or_default()));
            }
            Event::Dropped { source, reason } => {
                self.explain(&format!("server {source} dropped: {reason}"));
            }
            Event::Started { size, done } => {
                if *done > 0 {
                    self.explain(&format!("{done} bytes are kept from an earlier run"));
                }
                self.begin(*size, *done);
            }
            Event::Received { source, bytes } => self.advance(*source, *bytes),
            Event::Lost { bytes, reason } => {
                self.received.set(self.received.get().saturating_sub(*bytes));
                if let Some(bar) = &*self.bar.borrow() {
                    bar.set_position(bar.position().saturating_sub(*bytes));
                }
                self.explain(&format!("{bytes} bytes are fetched again: {reason}"));
            }
            Event::Finished { target, size } => {
                self.clear();
                if let Some(target) = target {
                    let line = format!("{} is complete, {size} bytes\n", target.display());
                    self.screen.print_text(&[line.as_bytes()]);
                }
            }
            Event::AlreadyThere { target } => {
                let line = format!("{} exists already\n", target.display());
                self.screen.print_text(&[line.as_bytes()]);
            }
        }
    }
}

/// A line break if the page does not end with one.
fn ending(page: &[u8]) -> &'static [u8] {
    if page.last().is_none_or(|&last| last == b'\n') { b"" } else { b"\n" }
}
