//! The start of a balancer in another program.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::backends::{Backend, list};
use super::geography::FollowedGeography;
use super::policy::PolicyName;
use super::presence::source::OpenCatalogue;
use super::settings::{BalancerSettings, RawBalancerSettings};
use super::sources::SourceSet;
use super::{Balancer, BalancerFiles, CatalogueUnusable, StartError};
use crate::settings;

/// Settings of a [`Balancer`]. `config/default.toml` explains them and has their defaults. Configuration files and
/// environment variables have no effect.
///
/// ```
/// # use std::time::Duration;
/// # use fingerpost::balancer::Balancer;
/// # use fingerpost::balancer::PolicyName;
/// # actix_web::rt::System::new().block_on(async {
/// let balancer = Balancer::builder()
///     .backend("mirror1.example:8080")
///     .backend("https://mirror2.example/pub weight=2 tier=1")
///     .policy(PolicyName::Hash)
///     .probe_interval(Duration::from_secs(5))
///     .start()
///     .unwrap();
/// assert_eq!(balancer.status().backends.len(), 2);
///
/// let error = Balancer::builder().backend("mirror1.example").start().err().unwrap();
/// assert_eq!(error.to_string(), "cannot use the backends: line 1: mirror1.example: no port; write host:port");
/// # });
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    backends: String,
    list_file: Option<PathBuf>,
    changes: Vec<(&'static str, String)>,
}

impl Balancer {
    /// A builder with the default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Adds a backend in the syntax of the list of servers: `host:port` or a URL, and attributes.
    pub fn backend(mut self, line: impl fmt::Display) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(self.backends, "{line}");
        self
    }

    /// Reads the backends from a file and follows its changes. They replace the backends of [`Builder::backend`].
    pub fn list_file(self, path: impl Into<PathBuf>) -> Self {
        Self { list_file: Some(path.into()), ..self }
    }

    /// The rule for the choice of a backend.
    pub fn policy(self, policy: PolicyName) -> Self {
        self.with("balancer.policy", policy)
    }

    /// The status of a redirect: 301, 302, 307 or 308.
    pub fn status(self, status: u16) -> Self {
        self.with("balancer.status", status)
    }

    /// The interval between two probes of one backend; at least 20 ms.
    pub fn probe_interval(self, interval: Duration) -> Self {
        self.with("balancer.probe_interval", humantime::format_duration(interval))
    }

    /// The time limit of one probe; at most half the interval.
    pub fn probe_timeout(self, timeout: Duration) -> Self {
        self.with("balancer.probe_timeout", humantime::format_duration(timeout))
    }

    /// The path that probes request.
    pub fn probe_path(self, path: &str) -> Self {
        self.with("balancer.probe_path", path)
    }

    /// The content of the probed file, `text:SUBSTRING` or `sha-256:DIGITS`; an answer with other content is a failure.
    pub fn probe_expect(self, expectation: &str) -> Self {
        self.with("balancer.probe_expect", expectation)
    }

    /// The number of other backends in the `Link` lines of a redirect; 0 to 3.
    pub fn alternates(self, alternates: usize) -> Self {
        self.with("balancer.alternates", alternates)
    }

    /// Whether a client that requests the same file again after 1 to 60 s is sent to another backend.
    pub fn second_chance(self, is_given: bool) -> Self {
        self.with("balancer.second_chance", is_given)
    }

    /// Whether the sizes of files that are requested twice are looked up at the backends, so that downloads are weighed by size.
    pub fn size_lookups(self, are_made: bool) -> Self {
        self.with("balancer.size_lookups", are_made)
    }

    /// The list of all files, a file or a URL. Requests are redirected only to backends that have the file.
    pub fn catalogue(self, source: &str) -> Self {
        self.with("balancer.catalogue", source)
    }

    /// Databases in the `MaxMind` DB format, by which clients get near servers.
    pub fn geo(self, databases: &[&str]) -> Self {
        let lines: Vec<_> = databases.iter().map(|database| format!("{database}\n")).collect();
        self.with("balancer.geo", lines.concat())
    }

    fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.changes.push((key, value.to_string()));
        self
    }

    /// Starts the balancer.
    ///
    /// # Panics
    /// Outside of an actix `System`; `#[actix_web::main]` creates one.
    pub fn start(self) -> Result<Balancer, StartError> {
        let raw: RawBalancerSettings = settings::section("balancer", self.changes)?;
        let settings = BalancerSettings::try_from(raw)?;
        let source = match self.list_file {
            Some(path) => SourceSet::file(path)?,
            None => SourceSet::fixed(fixed(&self.backends)?),
        };
        let catalogue =
            settings.catalogue.as_ref().map(|source| OpenCatalogue::open(source, None)).transpose();
        let catalogue = catalogue.map_err(CatalogueUnusable::from)?;
        let geography = Some(&settings.geography).filter(|settings| !settings.has_no_file());
        let geography = geography.map(FollowedGeography::open).transpose()?;
        let files = BalancerFiles { catalogue, geography, ..BalancerFiles::default() };
        Ok(Balancer::start(&settings, source, files, None))
    }
}

/// Parses the lines. Every problem is an error.
fn fixed(lines: &str) -> Result<Vec<Backend>, StartError> {
    let list = list::parse(lines.as_bytes());
    let problem = list.problems.into_iter().next();
    problem.map_or_else(|| Ok(list.backends), |problem| Err(StartError::Backends(problem)))
}
