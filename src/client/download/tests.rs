//! Tests of downloads in virtual time, with scripted servers and an output in memory. They state promises to users.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::Mutex;

use super::*;
use crate::client::checksum::Algorithm;
use crate::client::exit_code::GetCode;
use crate::client::plan::PlanSettings;
use crate::client::range::{ByteRange, RangeSet};
use crate::client::sink::Durability;

mod disk;
mod network;

use disk::{MemoryDisk, MemoryFile, hash};
use network::{Asked, CHUNK, ScriptedNetwork, ScriptedSource};

const MEGA: u64 = 1_000_000;

struct Nowhere;

impl Observer for Nowhere {
    fn notice(&self, _: &Event<'_>) {}
}

/// The options without any flag.
fn options() -> Options {
    Options {
        plan: PlanSettings::default(),
        max_redirects: 10,
        headers: Vec::new(),
        resume: Resume::Yes,
        clobber: Clobber::Replace,
        unavailable: Unavailable::Fail,
        retry_first: false,
        retry_until: None,
        max_time: None,
        checkpoint_every: Duration::from_secs(2),
        durability: Durability::Synced,
        reporting: Reporting::Compare,
        naming: Naming::Address,
    }
}

/// A download in a world of its own.
struct World {
    network: Rc<ScriptedNetwork>,
    disk: MemoryDisk,
    options: Options,
    identity: ContentIdentity,
    pieces: Option<Pieces>,
    folder: tempfile::TempDir,
}

impl World {
    fn of(servers: Vec<ScriptedSource>) -> Self {
        let network = ScriptedNetwork { servers: RefCell::new(servers), ..ScriptedNetwork::default() };
        let file = MemoryFile { room: u64::MAX, ..MemoryFile::default() };
        let folder = tempfile::tempdir().unwrap();
        // The download looks for an earlier run.
        std::fs::write(folder.path().join("f.part"), "").unwrap();
        Self {
            network: Rc::new(network),
            disk: MemoryDisk(Arc::new(Mutex::new(file))),
            options: options(),
            identity: ContentIdentity::default(),
            pieces: None,
            folder,
        }
    }

    fn with_digest(mut self, file: &[u8]) -> Self {
        self.identity.digest = Some((hash(file, Algorithm::Sha256), Authority::Given));
        self
    }

    async fn download(&self) -> DownloadReport {
        let count = self.network.servers.borrow().len();
        let job = DownloadJob {
            origin: FileOrigin::Mirrors {
                name: "f".into(),
                urls: (0..count).map(|number| format!("http://s{number}/f").parse().unwrap()).collect(),
                identity: self.identity.clone(),
                pieces: self.pieces.clone(),
                unchecked: None,
            },
            output: Output::Folder(self.folder.path().to_owned()),
            checksum: None,
            credentials: Rc::default(),
        };
        let (_sender, stop) = watch::channel(false);
        let context = Context {
            transport: Rc::clone(&self.network) as Rc<dyn SendRequest>,
            options: Rc::new(self.options.clone()),
            limiter: None,
            storage: Rc::new(self.disk.clone()),
            reserved_paths: ReservedPaths::default(),
            stop,
        };
        let transfer = fetch(&context, &job, &Nowhere).await;
        transfer.finish(&context, &Nowhere).await
    }

    fn file(&self) -> tokio::sync::MutexGuard<'_, MemoryFile> {
        self.disk.0.try_lock().unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.network.asked.borrow().clone()
    }

    fn sent(&self) -> u64 {
        self.network.sent.borrow().values().sum()
    }
}

fn content(size: u64) -> Bytes {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn code(report: &DownloadReport) -> GetCode {
    report.outcome.as_ref().err().map_or(GetCode::Complete, DownloadError::code)
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_replaced_within_seconds() {
    let file = content(3 * MEGA);
    let stalled = ScriptedSource { stalls_at: Some(MEGA), ..ScriptedSource::of(&file) };
    for at in [0, MEGA] {
        let world = World::of(vec![
            ScriptedSource { stalls_at: Some(at), ..stalled.clone() },
            ScriptedSource::of(&file),
        ]);
        let report = world.download().await;
        assert_eq!(code(&report), GetCode::Complete);
        assert_eq!(world.file().named.as_deref(), Some(&file[..]));
        assert!(report.elapsed < Duration::from_secs(7), "{:?}", report.elapsed);
        assert!(world.sent() < 3 * MEGA + 2 * CHUNK, "{} bytes", world.sent());
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_server_continues_at_the_byte_at_which_the_first_one_broke() {
    let file = content(3 * MEGA);
    let world = World::of(vec![
        ScriptedSource { breaks_after: Some(MEGA), ..ScriptedSource::of(&file) },
        ScriptedSource::of(&file),
    ]);
    let report = world.download().await;
    assert_eq!(code(&report), GetCode::Complete);
    assert_eq!(world.file().named.as_deref(), Some(&file[..]));
    let asked = world.asked();
    assert_eq!((asked[1].server, asked[1].range.as_deref()), (1, Some("bytes=1000000-")));
    assert_eq!(asked[1].if_range.as_deref(), Some("\"1\""));
    assert_eq!(world.sent(), 3 * MEGA);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_another_version_are_not_mixed() {
    let (file, other) = (content(3 * MEGA), Bytes::from(vec![7; 3 * MEGA as usize]));
    let broken = ScriptedSource { breaks_after: Some(MEGA), ..ScriptedSource::of(&file) };
    let world = World::of(vec![broken, ScriptedSource { etag: Some("\"2\""), ..ScriptedSource::of(&other) }]);
    let report = world.download().await;
    if code(&report) == GetCode::Complete {
        let named = world.file().named.clone().unwrap();
        assert!(named == file || named == other, "mixed");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_wrong_digest_servers_are_asked_one_at_a_time() {
    let file = content(4 * MEGA);
    for corrupt in 0..2 {
        let mut servers = vec![ScriptedSource { rate: MEGA, ..ScriptedSource::of(&file) }; 2];
        servers[corrupt].wrong = (0..40).map(|block| block * 100_000 + 7).collect();
        let mut world = World::of(servers).with_digest(&file);
        (world.options.plan.parallel_size, world.options.plan.parallel_time) =
            (0, Duration::from_millis(100));
        let report = world.download().await;
        assert_eq!(code(&report), GetCode::Complete, "{:?}", report.outcome);
        assert_eq!(world.file().named.as_deref(), Some(&file[..]));
        assert!(world.sent() <= 3 * 4 * MEGA + MEGA, "{} bytes", world.sent());
        // Both share the first attempt. Then, every request is for the whole file.
        let asked = world.asked();
        assert!(asked.iter().any(|asked| asked.range.is_some()), "{asked:?}");
        let last = asked.last().unwrap();
        assert_eq!((last.server, last.range.as_deref()), (1 - corrupt, None), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_corrupt_servers_leave_nothing_and_cost_at_most_five_times_the_file() {
    let file = content(MEGA);
    let servers =
        (0..9).map(|at| ScriptedSource { wrong: vec![at * 1000], ..ScriptedSource::of(&file) }).collect();
    let world = World::of(servers).with_digest(&file);
    let report = world.download().await;
    assert_eq!(code(&report), GetCode::WrongChecksum);
    assert!(report.outcome.unwrap_err().to_string().contains("4 sources were skipped"));
    assert!(world.file().named.is_none() && world.file().is_discarded);
    assert_eq!(world.sent(), 5 * MEGA);
}

#[tokio::test(start_paused = true)]
async fn only_a_wrong_piece_is_fetched_again_and_from_another_server() {
    let file = content(3 * MEGA);
    let corrupt = ScriptedSource { wrong: vec![MEGA + 5], ..ScriptedSource::of(&file) };
    let mut world = World::of(vec![corrupt, ScriptedSource::of(&file)]);
    let digests = file.chunks(MEGA as usize / 2).map(|piece| hash(piece, Algorithm::Sha256)).collect();
    world.pieces = Some(Pieces { length: MEGA / 2, size: 3 * MEGA, digests });
    world.identity.size = Some(3 * MEGA);
    let report = world.download().await;
    assert_eq!(code(&report), GetCode::Complete, "{:?}", report.outcome);
    assert_eq!(world.file().named.as_deref(), Some(&file[..]));
    assert_eq!(world.sent(), 3 * MEGA + MEGA / 2);
    assert_eq!(world.asked().last().unwrap().server, 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_continues_with_the_bytes_in_the_journal() {
    let file = content(2 * MEGA);
    let world = World::of(vec![ScriptedSource::of(&file)]);
    let identity = ContentIdentity {
        size: Some(2 * MEGA),
        etags: vec!["\"1\"".to_owned()],
        resource: "http://s0/f".to_owned(),
        ..ContentIdentity::default()
    };
    {
        let mut disk = world.file();
        disk.bytes = file[..MEGA as usize].to_vec();
        disk.journal = Some((identity, RangeSet::of(ByteRange::new(0, MEGA))));
    }
    let report = world.download().await;
    assert_eq!(code(&report), GetCode::Complete);
    assert_eq!(world.file().named.as_deref(), Some(&file[..]));
    let asked = &world.asked()[0];
    assert_eq!((asked.range.as_deref(), asked.if_range.as_deref()), (Some("bytes=1000000-"), Some("\"1\"")));
    assert_eq!(world.sent(), MEGA);
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_leaves_right_bytes_in_the_journal() {
    let file = content(4 * MEGA);
    // The connection breaks each time, or the disk is full.
    for (breaks_after, room, failure) in
        [(Some(300_000), u64::MAX, GetCode::EmptyReply), (None, 3 * MEGA, GetCode::WriteError)]
    {
        let server = ScriptedSource { breaks_after, rate: MEGA, ..ScriptedSource::of(&file) };
        let mut world = World::of(vec![server]);
        world.file().room = room;
        world.options.plan.max_failures = 0;
        world.options.checkpoint_every = Duration::from_millis(100);
        let report = world.download().await;
        assert_eq!(code(&report), failure, "{:?}", report.outcome);
        let disk = world.file();
        assert!(disk.named.is_none() && !disk.is_discarded);
        let (_, done) = disk.journal.clone().unwrap();
        assert!(done.len() >= 200_000, "{done:?}");
        for range in done.iter() {
            let (start, end) = (range.start as usize, range.end as usize);
            assert_eq!(disk.bytes[start..end], file[start..end]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_again_after_its_retry_after() {
    let file = content(MEGA);
    let refusals = vec![(503, "Retry-After: 7\r\n"), (429, "Retry-After: 11\r\n")];
    let world = World::of(vec![ScriptedSource { refusals, ..ScriptedSource::of(&file) }]);
    let report = world.download().await;
    assert_eq!(code(&report), GetCode::Complete);
    let times: Vec<Instant> = world.asked().iter().map(|asked| asked.at).collect();
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(pauses, [7, 11]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_process_does_not_blame_its_server() {
    let file = content(4 * MEGA);
    let world = World::of(vec![
        ScriptedSource { rate: MEGA, ..ScriptedSource::of(&file) },
        ScriptedSource::of(&file),
    ]);
    let suspending = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::time::advance(Duration::from_hours(1)).await;
    };
    let (report, ()) = tokio::join!(world.download(), suspending);
    assert_eq!(code(&report), GetCode::Complete);
    assert!(report.sources.iter().all(|source| source.errors.is_empty()), "{:?}", report.sources);
    assert_eq!(world.file().named.as_deref(), Some(&file[..]));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_no_server_has_ends_with_one_error() {
    let file = content(10);
    let world =
        World::of(vec![ScriptedSource { refusals: vec![(404, ""); 3], ..ScriptedSource::of(&file) }; 3]);
    let report = world.download().await;
    assert_eq!(code(&report), GetCode::HttpError);
    assert!(report.outcome.unwrap_err().to_string().starts_with("none of 3 servers has http://s0/f"));
}

fn any_server(file: &Bytes) -> impl Strategy<Value = ScriptedSource> + use<> {
    let file = file.clone();
    let size = file.len() as u64;
    (
        1_u64..40,
        prop::option::weighted(0.3, 0..size),
        prop::option::weighted(0.2, 0..size),
        prop::collection::vec(0..size, 0..3),
        any::<bool>(),
        prop::option::weighted(0.7, prop::sample::select(vec!["\"1\"", "\"2\""])),
    )
        .prop_map(move |(rate, breaks_after, stalls_at, wrong, honours_ranges, etag)| ScriptedSource {
            rate: rate * 200_000,
            breaks_after,
            stalls_at,
            wrong,
            honours_ranges,
            etag,
            ..ScriptedSource::of(&file)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Among any servers, with a known digest: success means the right file.
    #[test]
    fn a_complete_file_with_a_known_digest_is_right(
        servers in prop::collection::vec(any_server(&content(400_000)), 1..5),
        parallel in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let file = content(400_000);
        let mut world = World::of(servers).with_digest(&file);
        if parallel {
            world.options.plan.parallel_size = 0;
            world.options.plan.parallel_time = Duration::ZERO;
            world.options.plan.split_min = 1000;
            world.options.plan.lease_min = 20_000;
        }
        let report = runtime.block_on(world.download());
        let named = world.file().named.clone();
        prop_assert_eq!(named.is_some(), code(&report) == GetCode::Complete);
        prop_assert!(named.is_none_or(|named| named == file));
    }
}
