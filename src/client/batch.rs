//! Several files, so many at a time, on one thread and over shared connections.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use futures_util::{StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::download::{self, Context, Job, Origin, Output};
use super::error::DownloadError;
use super::exit_code::GetCode;
use super::limit::RateLimiter;
use super::naming;
use super::progress::Screen;
use super::settings::{Reports, Settings, parse_url};
use super::transport::Transport;
use crate::telemetry;

/// Downloads everything; the code of the first address that failed.
pub(super) async fn run(settings: Settings) -> GetCode {
    let jobs = jobs(&settings);
    let screen = Screen::new(settings.show, jobs.len());
    let context = Context {
        transport: Transport::new(settings.transport.clone()),
        options: Rc::new(settings.options.clone()),
        limiter: settings.limit_rate.map(|rate| Rc::new(RefCell::new(RateLimiter::new(rate)))),
        stop: stop_on_signals(),
    };
    let is_one = jobs.len() == 1;
    let (context, screen) = (&context, &screen);
    let mut first_failure: Option<(usize, GetCode)> = None;
    let mut finished = stream::iter(jobs.into_iter().enumerate())
        .map(|(index, (address, job))| async move {
            let outcome = match job {
                Ok(job) => {
                    let report = download::run(context, &job, &screen.file(&job)).await;
                    if screen.reports() == Reports::Json {
                        screen.print_report(&report);
                    }
                    report.outcome.map(|_| ())
                }
                Err(error) => Err(error),
            };
            (index, address, outcome)
        })
        .buffer_unordered(settings.jobs);
    while let Some((index, address, outcome)) = finished.next().await {
        let Err(error) = outcome else { continue };
        let text = telemetry::chain(&error);
        let line = if is_one { format!("Error: {text}") } else { format!("Error: {address}: {text}") };
        screen.print_error(&line);
        if first_failure.is_none_or(|(first, _)| index < first) {
            first_failure = Some((index, error.code()));
        }
    }
    screen.close();
    first_failure.map_or(GetCode::Complete, |(_, code)| code)
}

/// What is to be downloaded, in order, with the address as it was written.
fn jobs(settings: &Settings) -> Vec<(String, Result<Job, DownloadError>)> {
    let mut names = HashSet::new();
    let mut jobs = Vec::new();
    for input in &settings.inputs {
        let job = parse_url(input).map(|url| settings.job(url)).and_then(|job| {
            // The second of two files with one name would take the place of the first.
            match (&job.output, &job.origin) {
                (Output::Folder(_), Origin::Address(url)) if !names.insert(naming::from_url(url)) => {
                    let name = naming::from_url(url);
                    Err(DownloadError::Usage(format!("another file of this run is named {name} too")))
                }
                _ => Ok(job),
            }
        });
        jobs.push((input.clone(), job));
    }
    jobs
}

/// Becomes true at Ctrl-C or SIGTERM, so that what came so far is kept.
fn stop_on_signals() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let Ok(mut signals) = signal(kind) else { continue };
        let sender = sender.clone();
        actix_rt::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send_replace(true) {
                    // The second time it is meant at once.
                    std::process::exit(i32::from(GetCode::Interrupted.number()));
                }
            }
        });
    }
    receiver
}
