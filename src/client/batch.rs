//! Several files, so many at a time, on one thread and over shared connections.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::download::{self, Context, Job};
use super::error::DownloadError;
use super::exit_code::GetCode;
use super::limit::RateLimiter;
use super::metalink::{self, MetalinkError};
use super::progress::Screen;
use super::settings::{Reports, Settings, parse_url};
use super::transport::{Request, Transport};
use crate::telemetry;

/// How long fetching a Metalink may take.
const METALINK_TIMEOUT: Duration = Duration::from_mins(1);

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
    let _handled = handle_size_limit();
    let is_one = jobs.len() == 1;
    let (context, screen) = (&context, &screen);
    let mut first_failure: Option<(usize, GetCode)> = None;
    let settings = &settings;
    let mut finished = stream::iter(jobs.into_iter().enumerate())
        .map(|(index, (address, job))| async move {
            let outcome = match job {
                Ok(job) => one(context, settings, &job, screen).await,
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

/// One download; where the address turns out to lead to a Metalink, those that it describes.
async fn one(
    context: &Context,
    settings: &Settings,
    job: &Job,
    screen: &Screen,
) -> Result<(), DownloadError> {
    let report = download::run(context, job, &screen.file(job)).await;
    let Err(DownloadError::IsMetalink { url }) = &report.outcome else {
        if screen.reports() == Reports::Json {
            screen.print_report(&report);
        }
        return report.outcome.map(|_| ());
    };
    let text = fetch_metalink(context, url).await?;
    for job in settings.described_jobs(metalink::parse(&text)?)? {
        let report = download::run(context, &job, &screen.file(&job)).await;
        if screen.reports() == Reports::Json {
            screen.print_report(&report);
        }
        report.outcome?;
    }
    Ok(())
}

async fn fetch_metalink(context: &Context, url: &str) -> Result<String, DownloadError> {
    let failed = |source| DownloadError::Transport { url: url.to_owned(), source };
    let request = Request::get(parse_url(url)?).with("User-Agent", super::USER_AGENT).with("Accept", "*/*");
    let reading = async {
        let mut answer = context.transport.send(&request).await.map_err(failed)?;
        let mut text = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&bytes);
            if text.len() > metalink::MAX_BYTES {
                return Err(MetalinkError::TooLarge.into());
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let limit = METALINK_TIMEOUT;
    tokio::time::timeout(limit, reading).await.unwrap_or(Err(DownloadError::TooLong(limit)))
}

/// What is to be downloaded, in order, with the address as it was written.
fn jobs(settings: &Settings) -> Vec<(String, Result<Job, DownloadError>)> {
    let mut names = HashSet::new();
    let mut jobs = Vec::new();
    for input in &settings.inputs {
        let described = match settings.jobs_of(input) {
            Ok(described) => described,
            Err(error) => {
                jobs.push((input.clone(), Err(error)));
                continue;
            }
        };
        for job in described {
            // The second of two files with one name would take the place of the first.
            let job = match job.name() {
                Some(name) if !names.insert(name.clone()) => {
                    let name = name.display();
                    Err(DownloadError::Usage(format!("another file of this run is named {name} too")))
                }
                _ => Ok(job),
            };
            jobs.push((input.clone(), job));
        }
    }
    jobs
}

/// Writing beyond the limit on the size of files fails with an error while this is held, and does not end the process.
fn handle_size_limit() -> Option<tokio::signal::unix::Signal> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).ok()
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
