//! Tests of downloads in virtual time, with scripted servers and an output in memory. They state promises to users.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use proptest::prelude::*;
use tokio::sync::Mutex;

use super::*;
use crate::client::checksum::{Algorithm, ChecksumHasher};
use crate::client::exit_code::GetCode;
use crate::client::plan::PlanSettings;
use crate::client::range::{ByteRange, RangeSet};
use crate::client::sink::{
    Batch, DigestMode, Durability, FileCompletion, Finish, ResumeState, Store, WholeFile,
};
use crate::http::client::head::Head;
use crate::http::client::{Request, TransportError};

const MEGA: u64 = 1_000_000;

/// Size of one read.
const CHUNK: u64 = 16 << 10;

/// A server with the file, and its faults.
#[derive(Debug, Clone)]
struct ScriptedSource {
    file: Bytes,
    /// Bytes per second.
    rate: u64,
    /// A strong `ETag`.
    etag: Option<&'static str>,
    /// The first answers, as status and further header lines, instead of the file.
    refusals: Vec<(u16, &'static str)>,
    /// Number of bytes of each body after which the connection breaks.
    breaks_after: Option<u64>,
    /// Position in the file behind which no byte is sent.
    stalls_at: Option<u64>,
    /// Positions of wrong bytes.
    wrong: Vec<u64>,
    honours_ranges: bool,
}

impl ScriptedSource {
    fn of(file: &Bytes) -> Self {
        Self {
            file: file.clone(),
            rate: 20 * MEGA,
            etag: Some("\"1\""),
            refusals: Vec::new(),
            breaks_after: None,
            stalls_at: None,
            wrong: Vec::new(),
            honours_ranges: true,
        }
    }
}

/// A request that a server received.
#[derive(Debug, Clone)]
struct Asked {
    server: usize,
    at: Instant,
    range: Option<String>,
    if_range: Option<String>,
}

/// Servers named by their numbers: `http://s0/f`.
#[derive(Default)]
struct ScriptedNetwork {
    servers: RefCell<Vec<ScriptedSource>>,
    asked: RefCell<Vec<Asked>>,
    sent: Rc<RefCell<HashMap<usize, u64>>>,
}

impl SendRequest for ScriptedNetwork {
    fn send(&self, request: Request) -> LocalBoxFuture<'static, Result<Box<dyn Response>, TransportError>> {
        let header = |name: &str| {
            let found = request.headers.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.clone())
        };
        let number: usize = request.url.host_str().unwrap().trim_start_matches('s').parse().unwrap();
        let (range, if_range) = (header("Range"), header("If-Range"));
        let asked =
            Asked { server: number, at: Instant::now(), range: range.clone(), if_range: if_range.clone() };
        self.asked.borrow_mut().push(asked);
        let mut servers = self.servers.borrow_mut();
        let server = &mut servers[number];
        let size = server.file.len() as u64;
        let etag = server.etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
        let is_same = if_range.is_none() || if_range.as_deref() == server.etag;
        let part = range.filter(|_| server.honours_ranges && is_same).map(|range| {
            let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            ByteRange::new(start.parse().unwrap(), end.parse().map_or(size, |last: u64| last + 1))
        });
        let (head, bytes) = if server.refusals.is_empty() {
            let bytes = part.unwrap_or(ByteRange::new(0, size));
            let first = match part {
                Some(part) => {
                    format!("206 Part\r\nContent-Range: bytes {}-{}/{size}", part.start, part.end - 1)
                }
                None => "200 OK".to_owned(),
            };
            (format!("HTTP/1.1 {first}\r\nContent-Length: {}\r\n{etag}\r\n", bytes.len()), bytes)
        } else {
            let (status, lines) = server.refusals.remove(0);
            (format!("HTTP/1.1 {status} No\r\n{lines}Content-Length: 0\r\n\r\n"), ByteRange::new(0, 0))
        };
        let head = Head::take(&mut BytesMut::from(head.as_str())).unwrap().unwrap();
        let answer = ScriptedAnswer {
            head,
            server: server.clone(),
            number,
            at: bytes.start,
            bytes,
            sent: Rc::clone(&self.sent),
        };
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(Box::new(answer) as Box<dyn Response>)
        }
        .boxed_local()
    }
}

struct ScriptedAnswer {
    head: Head,
    server: ScriptedSource,
    number: usize,
    at: u64,
    bytes: ByteRange,
    sent: Rc<RefCell<HashMap<usize, u64>>>,
}

impl Response for ScriptedAnswer {
    fn head(&self) -> &Head {
        &self.head
    }

    fn chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Bytes>, TransportError>> {
        async move {
            let breaks_at = self.server.breaks_after.map_or(u64::MAX, |after| self.bytes.start + after);
            let stalls_at = self.server.stalls_at.unwrap_or(u64::MAX);
            if self.at >= self.bytes.end {
                return Ok(None);
            }
            if self.at >= breaks_at {
                return Err(TransportError::EmptyReply);
            }
            if self.at >= stalls_at {
                std::future::pending::<()>().await;
            }
            let end = (self.at + CHUNK).min(self.bytes.end).min(breaks_at).min(stalls_at);
            let length = end - self.at;
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / self.server.rate as f64)).await;
            let mut bytes = self.server.file[self.at as usize..end as usize].to_vec();
            for wrong in self.server.wrong.iter().filter(|at| (self.at..end).contains(at)) {
                bytes[(wrong - self.at) as usize] ^= 1;
            }
            self.at = end;
            *self.sent.borrow_mut().entry(self.number).or_default() += length;
            Ok(Some(bytes.into()))
        }
        .boxed_local()
    }
}

/// A part file in memory.
#[derive(Debug, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    journal: Option<(ContentIdentity, RangeSet)>,
    /// The complete file under its name.
    named: Option<Vec<u8>>,
    is_discarded: bool,
    /// Size of the disk.
    room: u64,
}

#[derive(Debug, Clone)]
struct MemoryDisk(Arc<Mutex<MemoryFile>>);

impl Storage for MemoryDisk {
    fn open(&self, _: &std::path::Path) -> Result<(Box<dyn Store>, Option<ResumeState>), SinkError> {
        let journal = self.0.try_lock().unwrap().journal.clone();
        let state = journal.map(|(identity, done)| ResumeState { identity, done });
        Ok((Box::new(self.clone()), state))
    }

    fn finish_small(&self, _: WholeFile) -> LocalBoxFuture<'_, Result<Finish, SinkError>> {
        async { Ok(Finish::Declined) }.boxed_local()
    }
}

fn hash(bytes: &[u8], algorithm: Algorithm) -> Checksum {
    let mut hasher = ChecksumHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

impl Store for MemoryDisk {
    fn begin(&mut self, present: u64, _: Option<u64>, _: DigestMode) -> Result<(), SinkError> {
        let mut file = self.0.try_lock().unwrap();
        if present == 0 {
            (file.bytes, file.journal) = (Vec::new(), None);
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<Vec<ByteRange>, SinkError> {
        let mut file = self.0.blocking_lock();
        for (offset, bytes) in &batch.parts {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if end as u64 > file.room {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(SinkError::Io { action: "write", path: "f.part".into(), source });
            }
            // A byte that the journal lists must be taken back before it is overwritten.
            let range = ByteRange::new(start as u64, end as u64);
            assert!(file.journal.iter().all(|(_, done)| done.within(range).is_empty()));
            let size = file.bytes.len().max(end);
            file.bytes.resize(size, 0);
            file.bytes[start..end].copy_from_slice(bytes);
        }
        let of = |range: &ByteRange| &file.bytes[range.start as usize..range.end as usize];
        let pieces = batch.follow_up.pieces.iter();
        Ok(pieces
            .filter(|(piece, known)| hash(of(piece), known.algorithm()) != *known)
            .map(|(piece, _)| *piece)
            .collect())
    }

    fn save(&self, identity: &ContentIdentity, done: &RangeSet) -> Result<(), SinkError> {
        self.0.blocking_lock().journal = Some((identity.clone(), done.clone()));
        Ok(())
    }

    fn take_back(&self, identity: &ContentIdentity, right: &RangeSet) -> Result<(), SinkError> {
        self.save(identity, right)
    }

    fn is_sequential(&self) -> bool {
        false
    }

    fn digest(&self, _: &Batch, size: u64, algorithm: Algorithm) -> Result<Option<Checksum>, SinkError> {
        let file = self.0.blocking_lock();
        assert_eq!(file.bytes.len() as u64, size);
        Ok(Some(hash(&file.bytes, algorithm)))
    }

    fn finish(&self, ending: &FileCompletion) -> Result<(), SinkError> {
        let mut file = self.0.blocking_lock();
        assert_eq!(file.bytes.len() as u64, ending.size);
        (file.named, file.journal) = (Some(file.bytes.clone()), None);
        Ok(())
    }

    fn discard(&self) -> Result<(), SinkError> {
        let mut file = self.0.blocking_lock();
        (file.journal, file.is_discarded) = (None, true);
        Ok(())
    }
}

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
