//! Runs `wrk` and parses its report.

use std::io;
use std::process::Command;

/// The report of one run of `wrk`.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Complete answers.
    pub answers: f64,
    /// Answers per second.
    pub per_second: f64,
    /// The 99th percentile of the latency, in milliseconds.
    pub p99_milliseconds: f64,
    /// Answers with an error status, and failed connections.
    pub errors: f64,
}

/// Requests one target repeatedly, on one thread, for some seconds. Each request has the line `header`.
pub fn run(
    core: &str,
    connections: u32,
    seconds: u32,
    port: u16,
    target: &str,
    header: Option<&str>,
) -> io::Result<Load> {
    let output = Command::new("taskset")
        .args(["-c", core, "wrk", "-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .args(header.iter().flat_map(|header| ["-H", header]))
        .arg(format!("http://127.0.0.1:{port}{target}"))
        .output()?;
    parse(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| io::Error::other(format!("wrk did not say what it saw: {output:?}")))
}

fn parse(text: &str) -> Option<Load> {
    let after = |name: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(name)).map(|rest| rest.trim().to_owned())
    };
    let answers = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())?;
    // "Socket errors: connect 0, read 0, write 0, timeout 0", if there are any.
    let broken: f64 = after("Socket errors:").map_or(0.0, |line| {
        line.split(|byte: char| !byte.is_ascii_digit()).filter_map(|digits| digits.parse::<f64>().ok()).sum()
    });
    let refused = after("Non-2xx or 3xx responses:").map_or(Some(0.0), |count| count.parse().ok())?;
    Some(Load {
        answers,
        per_second: after("Requests/sec:")?.parse().ok()?,
        p99_milliseconds: milliseconds(&after("99%")?)?,
        errors: broken + refused,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}
