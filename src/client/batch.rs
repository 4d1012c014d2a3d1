//! Downloads several files, a limited number at a time, on one thread and over shared connections.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::masked;
use super::download::{self, Context, DownloadJob, DownloadReport, DownloadSuccess, FinishedTransfer};
use super::error::DownloadError;
use super::exit_code::GetCode;
use super::limit::RateLimiter;
use super::metalink;
use super::progress::FileDisplay;
use super::reserved_paths::ReservedPaths;
use super::screen::{Ended, Screen};
use super::settings::{Reports, Settings};
use super::sink::{GroupCommit, SinkError};
use crate::cli::ProgressMode;
use crate::http::client::HttpClient;
use crate::{open_files, telemetry};

/// Maximum number of files that wait for the disk, beside the active downloads.
const MAX_FINISHING: usize = 256;

/// Descriptors of the process beside those of downloads: standard streams, event loop, threads that resolve
/// names.
const OWN_DESCRIPTORS: u64 = 32;

/// Descriptors of a download beside its connections: part file, journal, new journal, folder.
const FILE_DESCRIPTORS: usize = 4;

/// Maximum time to save the received bytes after Ctrl-C.
const SAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits on concurrent work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parallelism {
    /// Active downloads.
    jobs: usize,
    /// Files that wait for the disk.
    finishing: usize,
}

impl Parallelism {
    fn new(jobs: usize) -> Self {
        Self { jobs, finishing: MAX_FINISHING }
    }

    /// Number of descriptors needed with `sources` servers for each file.
    fn descriptors(self, sources: usize) -> u64 {
        let of_jobs = self.jobs.saturating_mul(sources.saturating_add(FILE_DESCRIPTORS));
        // A small file needs one descriptor while it gets its name, a large one needs two: part file and
        // journal.
        let of_finishing = self.finishing.saturating_mul(2);
        OWN_DESCRIPTORS.saturating_add(of_jobs.saturating_add(of_finishing) as u64)
    }

    /// Reduces the limits to fit into `limit` descriptors: fewer concurrent files, instead of failed ones.
    fn within(self, limit: u64, sources: usize) -> Self {
        if self.descriptors(sources) <= limit {
            return self;
        }
        let half = usize::try_from(limit.saturating_sub(OWN_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
        let each = sources.saturating_add(FILE_DESCRIPTORS).max(1);
        Self { jobs: self.jobs.min(half / each).max(1), finishing: self.finishing.min(half / 2).max(1) }
    }
}

/// Downloads all inputs. Returns the code of the first address that failed.
pub(super) async fn run(settings: Settings) -> GetCode {
    let began = Instant::now();
    let sources = settings.options.plan.max_sources;
    let wanted = Parallelism::new(settings.jobs);
    let parallelism = wanted.within(open_files::raised(wanted.descriptors(sources)), sources);
    let active = Rc::new(Cell::new(0));
    let context = Context {
        transport: Rc::new(HttpClient::new(settings.transport.clone())),
        options: Rc::new(settings.options.clone()),
        limiter: settings.limit_rate.map(|rate| Rc::new(RefCell::new(RateLimiter::new(rate)))),
        storage: Rc::new(GroupCommit::new(settings.options.durability, parallelism.finishing)),
        reserved_paths: ReservedPaths::default(),
        stop: stop_on_signals(&active, settings.show.progress != Some(ProgressMode::None)),
    };
    let mut tasks = tasks(&settings, &context);
    let screen = Screen::new(settings.show, tasks.len());
    let _handled = handle_size_limit();
    let mut first_failure: Option<(Order, GetCode)> = None;
    let mut ended = Ended::default();
    // The files of a Metalink follow after all given addresses. An address in a Metalink is not read as
    // another Metalink.
    while !tasks.is_empty() {
        let is_one = settings.inputs.len() == 1 && tasks.len() == 1;
        let (context, screen, active) = (&context, &screen, &active);
        let mut endings = stream::iter(std::mem::take(&mut tasks))
            .map(|task| async move {
                active.set(active.get().saturating_add(1));
                (task.order, task.address.clone(), begin(context, task, screen).await)
            })
            .buffer_unordered(parallelism.jobs)
            // A download that only waits for the disk does not count as active.
            .map(|(order, address, begun)| async move {
                let ending = begun.settle(context, screen).await;
                active.set(active.get().saturating_sub(1));
                (order, address, ending)
            })
            .buffer_unordered(parallelism.finishing);
        while let Some((order, address, ending)) = endings.next().await {
            let error = match ending {
                Ok((DownloadSuccess::Downloaded | DownloadSuccess::AlreadyThere, size)) => {
                    ended.complete = ended.complete.saturating_add(1);
                    ended.bytes = ended.bytes.saturating_add(size);
                    continue;
                }
                Ok((DownloadSuccess::Metalink(text), _)) => {
                    let described = metalink::parse(&text).map_err(DownloadError::from);
                    let described = described.and_then(|files| settings.described_jobs(files));
                    let described = tasks_of(described, order.0, &address, context);
                    screen.expect(described.len());
                    tasks.extend(described);
                    continue;
                }
                Err(error) => error,
            };
            ended.failed = ended.failed.saturating_add(1);
            let text = telemetry::chain(&error);
            let line = if is_one { format!("Error: {text}") } else { format!("Error: {address}: {text}") };
            screen.print_error(&line);
            if first_failure.is_none_or(|(first, _)| order < first) {
                first_failure = Some((order, error.code()));
            }
        }
    }
    screen.close(Ended { took: began.elapsed(), ..ended });
    if let Some(error) = screen.take_report_error() {
        let error = SinkError::StandardOutput(error);
        screen.print_error(&format!("Error: {}", telemetry::chain(&error)));
        return first_failure.map_or(error.code(), |(_, code)| code);
    }
    first_failure.map_or(GetCode::Complete, |(_, code)| code)
}

/// Position of a file: index of its address, and index within the Metalink at that address.
type Order = (usize, usize);

/// A file to download, or the reason why it cannot be downloaded.
struct Task {
    order: Order,
    /// The address as given, without credentials.
    address: String,
    job: Result<DownloadJob, DownloadError>,
}

/// State of a download that no longer needs the network.
enum TransferOutcome<'a> {
    Failed { address: String, error: DownloadError },
    Done(Box<FinishedTransfer>, FileDisplay<'a>),
}

impl TransferOutcome<'_> {
    /// Waits for the disk, and prints the report. Returns the result with the size of the file.
    async fn settle(
        self,
        context: &Context,
        screen: &Screen,
    ) -> Result<(DownloadSuccess, u64), DownloadError> {
        let report = match self {
            Self::Failed { address, error } => DownloadReport::of_failure(address, error),
            Self::Done(transfer, display) => transfer.finish(context, &display).await,
        };
        // The report covers the files that a Metalink describes, not the Metalink.
        let is_file = !matches!(report.outcome, Ok(DownloadSuccess::Metalink(_)));
        if is_file && screen.reports() == Reports::Json {
            screen.print_report(&report);
        }
        report.outcome.map(|success| (success, report.size.unwrap_or_default()))
    }
}

/// Downloads one file, up to the point at which only disk work remains.
async fn begin<'a>(context: &Context, task: Task, screen: &'a Screen) -> TransferOutcome<'a> {
    let job = match task.job {
        Ok(job) => job,
        Err(error) => return TransferOutcome::Failed { address: task.address, error },
    };
    let display = FileDisplay::new(screen, &job);
    // Boxed to keep the futures small.
    let transfer = Box::new(Box::pin(download::fetch(context, &job, &display)).await);
    display.transfer_ended();
    let is_claimed = !job.is_named_later(context.options.naming);
    if let (true, Some(name), true) = (transfer.is_metalink(), job.name(), is_claimed) {
        // A file in the Metalink often has the name of the address.
        context.reserved_paths.release(&name);
    }
    TransferOutcome::Done(transfer, display)
}

/// All tasks, in order.
fn tasks(settings: &Settings, context: &Context) -> Vec<Task> {
    let inputs = settings.inputs.iter().enumerate();
    inputs.flat_map(|(index, input)| tasks_of(settings.jobs_of(input), index, input, context)).collect()
}

/// The tasks of one address. Of two files with one path, the second fails, because it would replace the
/// first.
fn tasks_of(
    jobs: Result<Vec<DownloadJob>, DownloadError>,
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
            context.reserved_paths.reserve(&name)?;
        }
        Ok(job)
    });
    claimed.enumerate().map(task).collect()
}

/// While the returned handle is held, a write beyond the file size limit (`RLIMIT_FSIZE`) fails with an error
/// instead of ending the process.
fn handle_size_limit() -> Option<tokio::signal::unix::Signal> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).ok()
}

/// Becomes true at Ctrl-C or SIGTERM, so that received bytes are saved. `active` is the number of downloads
/// to wait for.
fn stop_on_signals(active: &Rc<Cell<usize>>, is_verbose: bool) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let Ok(mut signals) = signal(kind) else { continue };
        let (sender, active) = (sender.clone(), Rc::clone(active));
        actix_rt::spawn(async move {
            let end = || std::process::exit(i32::from(GetCode::Interrupted.number()));
            while signals.recv().await.is_some() {
                if sender.send_replace(true) {
                    // A second signal ends the process at once.
                    end();
                }
                if is_verbose {
                    let (files, limit) = (active.get(), humantime::format_duration(SAVE_TIMEOUT));
                    // Standard error may be closed.
                    let _ = writeln!(
                        std::io::stderr(),
                        "Interrupted: saving {files} unfinished download(s), {limit} at most; a second Ctrl-C ends at once"
                    );
                }
                actix_rt::spawn(async move {
                    tokio::time::sleep(SAVE_TIMEOUT).await;
                    end();
                });
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_descriptors_mean_fewer_files_at_a_time() {
        let wanted = Parallelism::new(128);
        assert_eq!(wanted.within(1 << 20, 4), wanted);
        for limit in [0, 40, 64, 100, 256, 1024] {
            let fitting = wanted.within(limit, 4);
            assert!(fitting.jobs >= 1 && fitting.finishing >= 1);
            assert!(fitting.descriptors(4) <= limit.max(OWN_DESCRIPTORS + 12), "{limit}: {fitting:?}");
        }
        assert_eq!(wanted.within(64, 4), Parallelism { jobs: 2, finishing: 8 });
    }
}
