//! Several files, so many at a time, on one thread and over shared connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::claims::Claims;
use super::download::{self, Context, Job, Landed};
use super::error::DownloadError;
use super::exit_code::GetCode;
use super::limit::RateLimiter;
use super::metalink::{self, MetalinkError};
use super::progress::{FileDisplay, Screen};
use super::settings::{Reports, Settings, parse_url};
use super::sink::Finisher;
use super::transport::{Request, Transport};
use crate::telemetry;

/// How long fetching a Metalink may take.
const METALINK_TIMEOUT: Duration = Duration::from_mins(1);

/// Files that wait for the disk at a time, beside those that are downloaded.
const MAX_LANDED: usize = 256;

/// Downloads everything; the code of the first address that failed.
pub(super) async fn run(settings: Settings) -> GetCode {
    let claims = Claims::default();
    let jobs = jobs(&settings, &claims);
    let screen = Screen::new(settings.show, jobs.len());
    let context = Context {
        transport: Transport::new(settings.transport.clone()),
        options: Rc::new(settings.options.clone()),
        limiter: settings.limit_rate.map(|rate| Rc::new(RefCell::new(RateLimiter::new(rate)))),
        finisher: Finisher::new(settings.options.durability),
        claims,
        stop: stop_on_signals(),
    };
    let _handled = handle_size_limit();
    let is_one = jobs.len() == 1;
    let (context, screen) = (&context, &screen);
    let mut first_failure: Option<(usize, GetCode)> = None;
    let settings = &settings;
    let mut finished = stream::iter(jobs.into_iter().enumerate())
        .map(|(index, (address, job))| async move {
            let ending = match job {
                // Boxed, so that what is handed around is small.
                Ok(job) => Box::pin(one(context, settings, &job, screen)).await,
                Err(error) => Ending::Known(Err(error)),
            };
            (index, address, ending)
        })
        .buffer_unordered(settings.jobs)
        // Whoever waits for the disk alone keeps nobody from the network.
        .map(|(index, address, ending)| async move { (index, address, ending.settle(screen).await) })
        .buffer_unordered(MAX_LANDED);
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

/// How far a download is once it needs the network no more.
enum Ending<'a> {
    Known(Result<(), DownloadError>),
    Landed(Box<Landed>, FileDisplay<'a>),
}

impl Ending<'_> {
    /// Waits for the disk, and reports.
    async fn settle(self, screen: &Screen) -> Result<(), DownloadError> {
        let (landed, display) = match self {
            Self::Known(outcome) => return outcome,
            Self::Landed(landed, display) => (landed, display),
        };
        let report = landed.finish(&display).await;
        if screen.reports() == Reports::Json {
            screen.print_report(&report);
        }
        report.outcome.map(|_| ())
    }
}

/// One download; where the address turns out to lead to a Metalink, those that it describes.
async fn one<'a>(context: &Context, settings: &Settings, job: &Job, screen: &'a Screen) -> Ending<'a> {
    let display = screen.file(job);
    let landed = download::fetch(context, job, &display).await;
    if let Err(DownloadError::IsMetalink { url }) = landed.outcome() {
        drop(display);
        return Ending::Known(described(context, settings, url, screen).await);
    }
    display.landed();
    Ending::Landed(Box::new(landed), display)
}

/// The downloads that the Metalink at `url` describes.
async fn described(
    context: &Context,
    settings: &Settings,
    url: &str,
    screen: &Screen,
) -> Result<(), DownloadError> {
    let text = fetch_metalink(context, url).await?;
    for job in settings.described_jobs(metalink::parse(&text)?)? {
        let display = screen.file(&job);
        let landed = Box::new(download::fetch(context, &job, &display).await);
        Ending::Landed(landed, display).settle(screen).await?;
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
fn jobs(settings: &Settings, claims: &Claims) -> Vec<(String, Result<Job, DownloadError>)> {
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
            let claimed = job.name().map_or(Ok(()), |name| claims.claim(&name));
            jobs.push((input.clone(), claimed.map(|()| job)));
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
