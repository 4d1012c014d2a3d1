//! What the comparisons of whole processes share: servers under test and what the operating system says they cost.

pub mod balancer;
pub mod canned;
pub mod connects;
pub mod process;
pub mod wrk;

/// The processor that the measured server has for itself.
pub const SERVER_CORE: &str = "0";
/// The processor that load and everything else share.
pub const LOAD_CORE: &str = "1";

/// The middle one of some figures.
///
/// # Panics
/// When there is none.
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
