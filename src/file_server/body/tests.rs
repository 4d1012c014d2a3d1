use std::io::Write as _;

use actix_http::body;

use super::super::load::{Load, RequestKind};
use super::*;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

fn file(length: usize) -> (tempfile::NamedTempFile, Arc<File>, Vec<u8>) {
    let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let open = Arc::new(file.reopen().unwrap());
    (file, open, bytes)
}

fn counted(open: &Arc<File>, load: &Arc<Load>, length: u64) -> CountedBody {
    let in_flight = Rc::new(RefCell::new(Some(load.begin(RequestKind::Client, length))));
    let flight = Flight::Shared(Rc::clone(&in_flight));
    let identity = FileState::of(open).unwrap();
    let guard = GuardedFile { file: Arc::clone(open), identity, in_flight, counters: Arc::default() };
    let pieces = VecDeque::from([Piece::File(FilePart { start: 0, end: length })]);
    CountedBody::new(stream(pieces, Arc::clone(open)), Some(Rc::new(guard)), flight, None)
}

#[test]
fn pieces_are_streamed_in_their_order() {
    let (_file, open, bytes) = file(200_000);
    let pieces = VecDeque::from([
        Piece::Text(Bytes::from_static(b"<")),
        Piece::File(FilePart { start: 10, end: 150_000 }),
        Piece::Text(Bytes::from_static(b"|")),
        Piece::File(FilePart { start: 0, end: 5 }),
    ]);
    let body = stream(pieces, open);
    assert_eq!(body.size(), BodySize::Sized(149_997));
    let sent = run(body::to_bytes(body)).unwrap();
    assert!(sent == [b"<", &bytes[10..150_000], b"|", &bytes[..5]].concat());
}

#[test]
fn a_whole_body_completes_its_request_and_a_dropped_one_aborts_it() {
    let (_file, open, _) = file(100_000);
    let load = run(async { Arc::new(Load::new(1)) });
    assert_eq!(run(body::to_bytes(counted(&open, &load, 100_000))).unwrap().len(), 100_000);
    assert_eq!((load.completed(), load.aborted(), load.sent()), (1, 0, 100_000));
    drop(counted(&open, &load, 100_000));
    assert_eq!((load.completed(), load.aborted(), load.sent()), (1, 1, 100_000));
}

#[test]
fn the_body_of_a_changed_file_ends_with_an_error() {
    let (file, open, _) = file(100_000);
    let load = run(async { Arc::new(Load::new(1)) });
    let body = counted(&open, &load, 100_000);
    file.as_file().set_len(100_001).unwrap();
    assert!(run(body::to_bytes(body)).is_err());
    assert_eq!((load.completed(), load.aborted()), (0, 1));
}
