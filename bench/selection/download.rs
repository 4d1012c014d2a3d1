//! Clients that arrive on schedule, whether or not earlier ones have finished.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A download that takes longer fails.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Runs all downloads through the balancer. Returns the time of each download that started after the warm-up; `None` for
/// a failed one.
pub(crate) fn all(balancer: u16, jobs: &[(Duration, usize)], warm_up: Duration) -> Vec<Option<Duration>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("cannot start a runtime");
    runtime.block_on(async {
        let start = tokio::time::Instant::now();
        let mut running = Vec::new();
        for (at, file) in jobs {
            tokio::time::sleep_until(start + *at).await;
            let download = tokio::spawn(tokio::time::timeout(TIMEOUT, one(balancer, *file)));
            if *at >= warm_up {
                running.push(download);
            }
        }
        let mut times = Vec::new();
        for download in running {
            times.push(download.await.ok().and_then(Result::ok).and_then(Result::ok));
        }
        times
    })
}

async fn one(balancer: u16, file: usize) -> io::Result<Duration> {
    let start = Instant::now();
    let path = format!("/{file}.bin");
    let (head, _) = get(&format!("127.0.0.1:{balancer}"), &path).await?;
    let location =
        field(&head, "location").ok_or_else(|| io::Error::other("the redirect has no Location"))?;
    let (authority, path) = location
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| io::Error::other("the Location is not an http URL"))?;
    let (head, body) = get(authority, &format!("/{path}")).await?;
    let length = field(&head, "content-length").and_then(|length| length.parse().ok());
    if head.starts_with("HTTP/1.1 200") && length == Some(body) {
        Ok(start.elapsed())
    } else {
        Err(io::Error::other("the response is not a whole file"))
    }
}

/// The head of the response, and the length of the received body.
async fn get(authority: &str, path: &str) -> io::Result<(String, usize)> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("the response has no end of head"))? + 4;
    Ok((String::from_utf8_lossy(&answer[..end]).into_owned(), answer.len() - end))
}

fn field(head: &str, wanted: &str) -> Option<String> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned()))
}
