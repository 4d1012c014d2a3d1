//! Several files, so many at a time, on one thread and over shared connections.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::{StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::address::masked;
use super::claims::Claims;
use super::download::{self, Context, Job, Landed, Report};
use super::error::DownloadError;
use super::exit_code::GetCode;
use super::limit::RateLimiter;
use super::metalink;
use super::progress::{FileDisplay, Screen};
use super::settings::{Reports, Settings};
use super::sink::Finisher;
use super::transport::Transport;
use crate::telemetry;

/// Files that wait for the disk at a time, beside those that are downloaded.
const MAX_LANDED: usize = 256;

/// Downloads everything; the code of the first address that failed.
pub(super) async fn run(settings: Settings) -> GetCode {
    let context = Context {
        transport: Transport::new(settings.transport.clone()),
        options: Rc::new(settings.options.clone()),
        limiter: settings.limit_rate.map(|rate| Rc::new(RefCell::new(RateLimiter::new(rate)))),
        finisher: Finisher::new(settings.options.durability),
        claims: Claims::default(),
        stop: stop_on_signals(),
    };
    let mut tasks = tasks(&settings, &context);
    let screen = Screen::new(settings.show, tasks.len());
    let _handled = handle_size_limit();
    let mut first_failure: Option<(Order, GetCode)> = None;
    // What Metalinks describe comes after everything that was named itself; it leads to no further ones.
    while !tasks.is_empty() {
        let is_one = settings.inputs.len() == 1 && tasks.len() == 1;
        let (context, screen) = (&context, &screen);
        let mut endings = stream::iter(std::mem::take(&mut tasks))
            .map(|task| async move { (task.order, task.address.clone(), begin(context, task, screen).await) })
            .buffer_unordered(settings.jobs)
            // Whoever waits for the disk alone keeps nobody from the network.
            .map(|(order, address, begun)| async move { (order, address, begun.settle(context, screen).await) })
            .buffer_unordered(MAX_LANDED);
        while let Some((order, address, ending)) = endings.next().await {
            let error = match ending {
                Ok(()) => continue,
                Err(DownloadError::IsMetalink { text, .. }) => {
                    let described = metalink::parse(&text).map_err(DownloadError::from);
                    let described = described.and_then(|files| settings.described_jobs(files));
                    let described = tasks_of(described, order.0, &address, context);
                    screen.expect(described.len());
                    tasks.extend(described);
                    continue;
                }
                Err(error) => error,
            };
            let text = telemetry::chain(&error);
            let line = if is_one { format!("Error: {text}") } else { format!("Error: {address}: {text}") };
            screen.print_error(&line);
            if first_failure.is_none_or(|(first, _)| order < first) {
                first_failure = Some((order, error.code()));
            }
        }
    }
    screen.close();
    first_failure.map_or(GetCode::Complete, |(_, code)| code)
}

/// The place of a file among all: that of its address, and of those that a Metalink at the address describes.
type Order = (usize, usize);

/// A file to be downloaded, or why it is none.
struct Task {
    order: Order,
    /// The address as it was written.
    address: String,
    job: Result<Job, DownloadError>,
}

/// How far a download is once it needs the network no more.
enum Begun<'a> {
    Failed { address: String, error: DownloadError },
    Landed(Box<Landed>, FileDisplay<'a>),
}

impl Begun<'_> {
    /// Waits for the disk, and reports.
    async fn settle(self, context: &Context, screen: &Screen) -> Result<(), DownloadError> {
        let report = match self {
            Self::Failed { address, error } => Report::of_failure(address, error),
            Self::Landed(landed, display) => landed.finish(context, &display).await,
        };
        // A Metalink is no file, but those that it describes are.
        let is_file = !matches!(report.outcome, Err(DownloadError::IsMetalink { .. }));
        if is_file && screen.reports() == Reports::Json {
            screen.print_report(&report);
        }
        report.outcome.map(|_| ())
    }
}

/// Downloads, up to the point where only the disk is waited for.
async fn begin<'a>(context: &Context, task: Task, screen: &'a Screen) -> Begun<'a> {
    let job = match task.job {
        Ok(job) => job,
        Err(error) => return Begun::Failed { address: task.address, error },
    };
    let display = screen.file(&job);
    // Boxed, so that what is handed around is small.
    let landed = Box::new(Box::pin(download::fetch(context, &job, &display)).await);
    display.landed();
    let is_claimed = !job.is_named_later(context.options.naming);
    if let (Err(DownloadError::IsMetalink { .. }), Some(name), true) =
        (landed.outcome(), job.name(), is_claimed)
    {
        // What it describes often has the name of its address.
        context.claims.release(&name);
    }
    Begun::Landed(landed, display)
}

/// What is to be downloaded, in order.
fn tasks(settings: &Settings, context: &Context) -> Vec<Task> {
    let inputs = settings.inputs.iter().enumerate();
    inputs.flat_map(|(index, input)| tasks_of(settings.jobs_of(input), index, input, context)).collect()
}

/// The tasks that one address stands for: the second of two files with one name would take the place of the first.
fn tasks_of(
    jobs: Result<Vec<Job>, DownloadError>,
    index: usize,
    address: &str,
    context: &Context,
) -> Vec<Task> {
    let task = |(number, job)| Task { order: (index, number), address: masked(address), job };
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(error) => return vec![task((0, Err(error)))],
    };
    let claimed = jobs.into_iter().map(|job| {
        if let Some(name) = job.name().filter(|_| !job.is_named_later(context.options.naming)) {
            context.claims.claim(&name)?;
        }
        Ok(job)
    });
    claimed.enumerate().map(task).collect()
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
