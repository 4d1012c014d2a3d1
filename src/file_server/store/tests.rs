use std::pin::Pin;
use std::task::Poll;

use super::*;
use crate::http::transport::Passage;

/// Polls a future once; it must be pending.
async fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[test]
fn a_cancelled_read_is_not_used_by_later_requests() {
    let folder = tempfile::tempdir().unwrap();
    let root = Arc::new(Root::open(folder.path()).unwrap());
    let store = FileStore::new(root, 1 << 20, Passage::Memory, Arc::default());
    let write = |text: &str| std::fs::write(folder.path().join("file"), text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        write("old");
        let mut given_up = Box::pin(store.read(b"file"));
        let _ = poll_once(&mut given_up).await;
        drop(given_up);
        assert!(store.loading.borrow().is_empty());
        write("new bytes");
        let found = store.read(b"file").await.unwrap();
        assert!(matches!(found.content, Content::Memory(bytes) if bytes == "new bytes"));
    });
}

#[test]
fn a_request_that_waits_for_a_cancelled_read_gets_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "hello").unwrap();
    let root = Arc::new(Root::open(folder.path()).unwrap());
    let store = FileStore::new(root, 1 << 20, Passage::Memory, Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut given_up = Box::pin(store.read(b"file"));
        let _ = poll_once(&mut given_up).await;
        let mut waiting = Box::pin(store.read(b"file"));
        let early = poll_once(&mut waiting).await;
        drop(given_up);
        let found = match early {
            Poll::Ready(found) => found,
            Poll::Pending => waiting.await,
        };
        assert!(matches!(found.unwrap().content, Content::Memory(bytes) if bytes == "hello"));
    });
}
