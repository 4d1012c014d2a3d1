//! `fingerpost check`: reports the errors of a start without a start: configuration, list, folders, log files, ports and
//! trust anchors. It creates no file and listens on each port only briefly.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use crate::balancer::admin::access::Access;
use crate::balancer::backends::{list, watch};
use crate::balancer::presence::source::OpenCatalogue;
use crate::balancer::settings::{BalancerSettings, RawBalancerSettings};
use crate::balancer::sources::SourceAddress;
use crate::balancer::state_folder::StateFolder;
use crate::cli::{CheckArguments, CheckedProgram};
use crate::configuration::file::FileCheck;
use crate::configuration::{self, RawSettings};
use crate::file_server::FileServer;
use crate::file_server::settings::{RawServerSettings, ServerSettings};
use crate::hosting::ProgramSettings;
use crate::http::{listener, tls};
use crate::open_files;
use crate::settings::Variables;
use crate::telemetry::{self, chain};

/// The number of servers that the report lists; the others are counted.
const SHOWN_SERVERS: usize = 20;

/// Runs `fingerpost check`: writes the report to standard output and returns the exit code, a failure if the report
/// contains a problem.
pub(super) fn command(arguments: &CheckArguments) -> ExitCode {
    let report = report(arguments);
    let written = telemetry::print(report.text.as_bytes()).inspect_err(|error| telemetry::print_error(error));
    if report.problems == 0 && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The report of a check.
#[derive(Debug, Default)]
struct CheckReport {
    /// The lines of the report. A problem in a file starts with `file:line:`, like the messages of compilers.
    text: String,
    problems: usize,
}

impl CheckReport {
    fn push_line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// Adds a line with settings, unless a problem was found: the settings would then differ from those of a start.
    fn describe(&mut self, line: String) {
        if self.problems == 0 {
            self.push_line(line);
        }
    }

    fn problem(&mut self, line: impl AsRef<str>) {
        self.problems += 1;
        self.push_line(line);
    }

    fn extend(&mut self, errors: impl IntoIterator<Item = impl Into<Box<dyn Error>>>) {
        errors.into_iter().for_each(|error| self.problem(chain(&*error.into())));
    }
}

fn report(arguments: &CheckArguments) -> CheckReport {
    let mut report = CheckReport::default();
    if let Some((settings, programs)) = check_settings(arguments, &mut report) {
        if programs.balancer {
            check_balancer(settings.balancer, &mut report);
        }
        if programs.server {
            check_server(settings.server, &mut report);
        }
    }
    match report.problems {
        0 => report.push_line("No problems."),
        1 => report.push_line("1 problem."),
        count => report.push_line(format!("{count} problems.")),
    }
    report
}

/// The settings of a start, and the programs to check; `None` if the settings cannot be read at all.
fn check_settings(arguments: &CheckArguments, report: &mut CheckReport) -> Option<(RawSettings, Programs)> {
    let path = arguments.config.config.as_deref();
    let text = match path.map(configuration::read) {
        None => String::new(),
        Some(Ok(text)) => text,
        Some(Err(error)) => {
            report.problem(chain(&error));
            return None;
        }
    };
    let FileCheck { problems, usable, sections } = configuration::file::check(&text);
    for problem in &problems {
        let path = path.unwrap_or(Path::new("")).display();
        report.problem(format!("{path}:{}: {}", problem.line, problem.reason));
    }
    let loaded = if report.problems == 0 {
        configuration::from_text(&text, Variables::Read, arguments.overrides())
    } else {
        configuration::from_text(&usable, Variables::Ignored, arguments.overrides())
    };
    match loaded.and_then(|raw| configuration::validate(&raw).map(|()| raw)) {
        Ok(raw) => {
            let programs = Programs::of(arguments, &sections, &raw);
            Some((raw, programs))
        }
        // Every key is valid by itself, so the error concerns a variable, or the combination of two keys.
        Err(error) => {
            report.problem(chain(&error));
            None
        }
    }
}

/// The programs whose start is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Programs {
    balancer: bool,
    server: bool,
}

impl Programs {
    /// The program on the command line; else the configured programs; else the programs whose list or folder exists; else
    /// both, so that the report names the missing files.
    fn of(arguments: &CheckArguments, sections: &BTreeSet<String>, raw: &RawSettings) -> Self {
        let is_configured = |section: &str| {
            let prefix = format!("FINGERPOST__{}__", section.to_uppercase());
            sections.contains(section)
                || std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with(&prefix))
        };
        let named = Self {
            balancer: arguments.program == Some(CheckedProgram::Balancer),
            server: arguments.program == Some(CheckedProgram::Server),
        };
        let configured = Self {
            balancer: arguments.servers.is_some() || is_configured("balancer"),
            server: is_configured("server"),
        };
        let existing = Self {
            balancer: raw.balancer.list_file().is_some_and(|list| list.exists()),
            server: raw.server.root.exists(),
        };
        [named, configured, existing]
            .into_iter()
            .find(|programs| programs.balancer || programs.server)
            .unwrap_or(Self { balancer: true, server: true })
    }
}

/// Reports every problem that would end a start of the balancer.
fn check_balancer(raw: RawBalancerSettings, report: &mut CheckReport) {
    let interval = humantime::format_duration(raw.probe_interval).to_string();
    let Ok(settings) = BalancerSettings::try_from(raw) else { return };
    report.describe(format!(
        "balancer: listens on {}, answers {}, policy {}, probes {} every {interval}",
        settings.host.listen,
        settings.status.code(),
        settings.ranking.policy,
        settings.probes.path,
    ));
    for source in &settings.sources.addresses {
        match source {
            SourceAddress::File(path) => check_list(path, settings.trust.authorities.is_some(), report),
            SourceAddress::Remote(address) => report.push_line(format!("{address}: not read by this check")),
        }
    }
    if settings.trust.authorities.is_some() {
        report.extend(tls::client_config(&settings.trust).err());
    }
    let (host, port) = &settings.admin;
    report.extend(settings.host.check());
    match listener::listen(host, *port).map(|listener| listener.local_addr()) {
        Ok(Ok(address)) => report.extend(Access::open(settings.admin_token.as_deref(), address).err()),
        Ok(Err(error)) => report.problem(error.to_string()),
        Err(error) => report.problem(chain(&error)),
    }
    if let Some(catalogue) = &settings.catalogue {
        match OpenCatalogue::open(catalogue, None).map(|open| open.list) {
            Ok(None) => report.push_line(format!("{catalogue}: the catalogue is downloaded after the start")),
            Ok(Some((list, _))) => {
                report.push_line(format!("{catalogue}: {} files", list.catalogue.files()));
            }
            Err(error) => report.problem(chain(&error)),
        }
    }
    report.extend(settings.state.as_deref().and_then(|path| StateFolder::check(path).err()));
    report.extend(open_files::provide(settings.open_files()).err());
}

/// Reports every problem that would end a start of the file server.
fn check_server(raw: RawServerSettings, report: &mut CheckReport) {
    let Ok(settings) = ServerSettings::try_from(raw) else { return };
    report.describe(format!(
        "server: listens on {}, serves {}",
        settings.host.listen,
        settings.root.display()
    ));
    report.extend(FileServer::check(&settings));
    report.extend(open_files::provide(settings.open_files()).err());
}

fn check_list(path: &Path, has_authorities: bool, report: &mut CheckReport) {
    let bytes = match watch::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return report.problem(chain(&error)),
    };
    let list = list::parse(&bytes);
    let count = list.backends.len();
    let servers = if count == 1 { "server" } else { "servers" };
    report.push_line(format!("{}: {count} {servers}", path.display()));
    for backend in list.backends.iter().take(SHOWN_SERVERS) {
        report.push_line(format!("    {backend}"));
    }
    if count > SHOWN_SERVERS {
        report.push_line(format!("    and {} more", count - SHOWN_SERVERS));
    }
    let over_tls = list.backends.iter().filter(|backend| backend.id().is_https()).count();
    if over_tls > 0 && !has_authorities && !tls::has_trust_anchors() {
        report.problem(format!(
            "{}: https is used for {over_tls} of them, and this machine has no trust anchors: install the package \
             ca-certificates, or name a PEM file in SSL_CERT_FILE",
            path.display()
        ));
    }
    for problem in &list.problems {
        report.problem(format!("{}:{}: {}", path.display(), problem.line, problem.reason));
    }
    if list.unlisted_problems > 0 {
        report.problems += list.unlisted_problems;
        report.push_line(format!("{}: {} more problems", path.display(), list.unlisted_problems));
    }
}
