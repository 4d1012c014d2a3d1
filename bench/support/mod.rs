//! Shared parts of the benchmarks of whole processes: the servers under test, and their cost as counted by the kernel.

pub mod balancer;
pub mod canned;
pub mod connects;
pub mod process;
pub mod wrk;

/// The processor of the measured server. Nothing else runs on it.
pub const SERVER_CORE: &str = "0";
/// The processor of the load generator and all other processes.
pub const LOAD_CORE: &str = "1";

/// The median of some figures.
///
/// # Panics
/// If there are no figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The command line without the flag that cargo adds; `None` if this process was started as a server of canned answers or
/// as a client, and has ended.
pub fn arguments() -> std::io::Result<Option<Vec<String>>> {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    if let [_, word, answer] = arguments.as_slice()
        && word == canned::WORD
    {
        return canned::serve(&std::fs::read(answer)?).map(|()| None);
    }
    if let [_, word, rest @ ..] = arguments.as_slice()
        && word == connects::WORD
    {
        return connects::run(rest).map(|()| None);
    }
    Ok(Some(arguments))
}
