//! `fingerpost check`: what would run, and everything that is wrong with configuration and list, without running it.

use std::path::Path;
use std::process::ExitCode;

use crate::balancer::backends::{list, watch};
use crate::cli::CheckArguments;
use crate::http::listener::Place;
use crate::settings::file::{self, Found};
use crate::settings::{self, RawSettings, Variables};
use crate::telemetry::{self, chain};

/// How many servers of a list are shown; the rest is a number.
const SHOWN_SERVERS: usize = 20;

/// Runs `fingerpost check`: the report goes to standard output, and the code is a failure if it names a problem.
#[must_use]
pub fn command(arguments: &CheckArguments) -> ExitCode {
    let report = report(arguments);
    let written = telemetry::print(report.text.as_bytes()).inspect_err(|error| telemetry::complain(error));
    if report.problems == 0 && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What `check` has to say.
#[derive(Debug, Default)]
struct Report {
    /// Lines for a person; a problem starts with its file and line, as compilers write it.
    text: String,
    problems: usize,
}

impl Report {
    fn say(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn problem(&mut self, line: impl AsRef<str>) {
        self.problems += 1;
        self.say(line);
    }
}

fn report(arguments: &CheckArguments) -> Report {
    let mut report = Report::default();
    if let Some(settings) = check_settings(arguments, &mut report) {
        check_list(&settings.balancer.servers, &mut report);
    }
    match report.problems {
        0 => report.say("No problems."),
        1 => report.say("1 problem."),
        count => report.say(format!("{count} problems.")),
    }
    report
}

/// The settings that would be used, or as many of them as are right.
fn check_settings(arguments: &CheckArguments, report: &mut Report) -> Option<RawSettings> {
    let path = arguments.config.config.as_deref();
    let text = match path.map(file::read) {
        None => String::new(),
        Some(Ok(text)) => text,
        Some(Err(error)) => {
            report.problem(chain(&error));
            String::new()
        }
    };
    let Found { problems, usable } = file::check(&text);
    for problem in &problems {
        let path = path.unwrap_or(Path::new("")).display();
        report.problem(format!("{path}:{}: {}", problem.line, problem.reason));
    }
    let loaded = if report.problems == 0 {
        settings::from_text(&text, Variables::Read, arguments.overrides())
    } else {
        settings::from_text(&usable, Variables::Ignored, arguments.overrides())
    };
    match loaded.and_then(|raw| file::validate(&raw).map(|()| raw)) {
        Ok(raw) => {
            if report.problems == 0 {
                describe(&raw, report);
            }
            Some(raw)
        }
        // Every key was right by itself, so this is about a variable, or about two keys together.
        Err(error) => {
            report.problem(chain(&error));
            None
        }
    }
}

fn describe(settings: &RawSettings, report: &mut Report) {
    let (balancer, server) = (&settings.balancer, &settings.server);
    report.say(format!(
        "balancer: listens on {}, answers {}, chooses by {}, probes {} every {}",
        place(&balancer.host, balancer.port, &balancer.unix_socket, &balancer.unix_socket_mode),
        balancer.status,
        balancer.policy,
        balancer.probe_path,
        humantime::format_duration(balancer.probe_interval),
    ));
    report.say(format!(
        "server: listens on {}, serves {}",
        place(&server.host, server.port, &server.unix_socket, &server.unix_socket_mode),
        server.root.display()
    ));
}

fn place(host: &str, port: u16, unix_socket: &Path, mode: &str) -> String {
    let place = Place::new(host.to_owned(), port, unix_socket.to_owned(), mode);
    place.map_or_else(str::to_owned, |place| place.to_string())
}

fn check_list(path: &Path, report: &mut Report) {
    let bytes = match watch::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return report.problem(chain(&error)),
    };
    let list = list::parse(&bytes);
    let count = list.backends.len();
    let servers = if count == 1 { "server" } else { "servers" };
    report.say(format!("{}: {count} {servers}", path.display()));
    for backend in list.backends.iter().take(SHOWN_SERVERS) {
        report.say(format!("    {backend}"));
    }
    if count > SHOWN_SERVERS {
        report.say(format!("    and {} more", count - SHOWN_SERVERS));
    }
    for problem in &list.problems {
        report.problem(format!("{}:{}: {}", path.display(), problem.line, problem.reason));
    }
    if list.unlisted_problems > 0 {
        report.problems += list.unlisted_problems;
        report.say(format!("{}: {} more problems", path.display(), list.unlisted_problems));
    }
}
