//! The parts of a running server that a reload changes: limits, pages, certificates and access log of both programs.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::access_log::{AccessLog, OpenedLog};
use super::certificates::{Certificates, LoadedCertificates};
use super::https::{Https, HttpsSettings};
use super::pages::Pages;
use super::transport::{Limits, ServingControl};

/// The signal for a reload, and its receivers that read files of their own: the list and the certificates.
#[derive(Debug)]
pub(crate) struct ReloadSignal {
    hangups: Signal,
    file_reloads: watch::Sender<()>,
}

impl ReloadSignal {
    /// Handles SIGHUP from now on. Must be called before the program announces that it is ready.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, file_reloads: watch::Sender::new(()) })
    }

    /// Changes whenever files are to be read at once.
    pub(crate) fn file_reloads(&self) -> watch::Receiver<()> {
        self.file_reloads.subscribe()
    }

    /// Waits for the next SIGHUP.
    pub(crate) async fn received(&mut self) {
        self.hangups.recv().await;
    }

    /// Has files read at once.
    pub(crate) fn reload_files(&self) {
        self.file_reloads.send_replace(());
    }
}

/// The parts of a running server.
#[derive(Debug)]
pub(crate) struct RunningServer {
    pub(crate) control: ServingControl,
    /// The time for unfinished answers at a stop.
    pub(crate) grace: watch::Sender<Duration>,
    certificates: Option<Arc<Certificates>>,
    log: Option<AccessLog>,
}

/// The parts of new settings that can fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerChange {
    has_https: bool,
    has_log: bool,
}

/// The result of [`ServerChange::prepare`].
#[derive(Debug)]
pub(crate) struct PreparedServer {
    certificates: Option<LoadedCertificates>,
    log: Option<OpenedLog>,
}

impl RunningServer {
    /// A server with these parts.
    pub(crate) fn new(
        control: ServingControl,
        grace: watch::Sender<Duration>,
        https: Option<&Https>,
        log: Option<AccessLog>,
    ) -> Self {
        Self { control, grace, certificates: https.map(Https::certificates), log }
    }

    /// Prepares changes of this server, on any thread.
    pub(crate) fn change(&self) -> ServerChange {
        ServerChange { has_https: self.certificates.is_some(), has_log: self.log.is_some() }
    }

    /// Puts changes into force.
    pub(crate) async fn apply(
        &self,
        prepared: PreparedServer,
        limits: Limits,
        pages: Pages,
        grace: Duration,
    ) {
        if let (Some(own), Some(new)) = (&self.certificates, prepared.certificates) {
            own.replace(new);
        }
        if let (Some(own), Some(new)) = (&self.log, prepared.log) {
            own.move_to(new).await;
        }
        self.control.change(limits, pages);
        self.grace.send_replace(grace);
    }
}

impl ServerChange {
    /// Reads and opens the files of changed keys. HTTPS and the access log can be neither switched on nor off.
    pub(crate) fn prepare(
        self,
        changed: &[String],
        https: &HttpsSettings,
        log: Option<&Path>,
    ) -> Result<PreparedServer, Box<dyn Error>> {
        let is_changed =
            |key: &str| changed.iter().any(|name| name.split_once('.').is_some_and(|(_, own)| own == key));
        // The files of unchanged names are followed, and a half-written one must not reject the configuration.
        let is_new = self.has_https && (is_changed("tls_cert") || is_changed("tls_key"));
        let certificates = is_new.then(|| https.read()).transpose()?;
        // The last step, because it may create the file.
        let log = log.filter(|_| self.has_log && is_changed("access_log"));
        Ok(PreparedServer { certificates, log: log.map(OpenedLog::open).transpose()? })
    }
}
