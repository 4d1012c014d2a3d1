//! Notifications of other programs over HTTP: a backend is down for long, no backend is usable, or a certificate ends soon.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use super::backends::BackendId;
use super::health::State;
use super::ranking::publisher::TablePublisher;
use super::ranking::selection::Mode;
use super::ranking::table::RoutingTable;
use super::wall_clock;
use crate::http::certificates::{Certificates, EXPIRY_NOTICE};
use crate::http::client::{HttpClient, Request, TransportSettings};
use crate::telemetry::chain;

/// The interval at which the latest table is judged.
const INTERVAL: Duration = Duration::from_secs(1);

/// The number of notifications that wait for delivery. A later one is dropped and logged.
const WAITING: usize = 256;

/// The attempts to deliver a notification, with a pause that doubles from [`FIRST_PAUSE`].
const ATTEMPTS: u32 = 6;

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The receiver of notifications, and the rule for them.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    /// Receives a POST with JSON for each notification.
    pub url: Url,
    /// A backend that is down for a shorter time is not notified.
    pub down_after: Duration,
}

/// The body of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Notification {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    /// The file of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    reason: String,
    /// The begin of the state; for a certificate, the begin of the time in which it should be renewed.
    #[serde(with = "wall_clock")]
    since: SystemTime,
}

/// Decides about notifications. Pure.
#[derive(Debug, Default)]
struct Notifier {
    /// The backends that were notified as down.
    down: HashSet<BackendId>,
    /// The time at which the last usable backend was lost.
    without_backend_since: Option<SystemTime>,
    /// The certificates that were notified, with their ends.
    ending: HashMap<String, SystemTime>,
}

impl Notifier {
    /// The notifications for a table, now being `(now, wall)`.
    fn observe(
        &mut self,
        table: &RoutingTable,
        down_after: Duration,
        now: Instant,
        wall: SystemTime,
    ) -> Vec<Notification> {
        let mut notifications = Vec::new();
        let mut still_down = HashSet::new();
        for entry in &table.entries {
            let (id, health) = (entry.backend.id(), &entry.health);
            let was_notified = self.down.contains(id);
            let age = now.saturating_duration_since(health.since());
            let event = match health.state() {
                State::Down if was_notified => None,
                State::Down if age >= down_after => Some("down"),
                State::Up if was_notified => Some("up"),
                _ => None,
            };
            if health.state() != State::Up && (was_notified || event.is_some()) {
                still_down.insert(id.clone());
            }
            notifications.extend(event.map(|event| Notification {
                event,
                backend: Some(id.to_string()),
                certificate: None,
                reason: health.reason().to_string(),
                since: wall.checked_sub(age).unwrap_or(wall),
            }));
        }
        // Backends that left the list are forgotten.
        self.down = still_down;
        let is_without = table.mode == Mode::Nothing;
        let event = match (self.without_backend_since, is_without) {
            (None, true) => Some(("no-backend", wall)),
            (Some(since), false) => Some(("backend-again", since)),
            _ => None,
        };
        self.without_backend_since = is_without.then(|| self.without_backend_since.unwrap_or(wall));
        let reason = table.mode.to_string();
        notifications.extend(event.map(|(event, since)| Notification {
            event,
            backend: None,
            certificate: None,
            reason,
            since,
        }));
        notifications
    }

    /// The notifications for certificates with these files and ends. Each end is notified once.
    fn observe_certificates(
        &mut self,
        ends: Vec<(String, SystemTime)>,
        wall: SystemTime,
    ) -> Vec<Notification> {
        let ends = ends.into_iter().filter(|(_, end)| *end < wall + EXPIRY_NOTICE);
        let before = std::mem::replace(&mut self.ending, ends.collect());
        let new = self.ending.iter().filter(|(file, end)| before.get(*file) != Some(*end));
        let notification = |(file, end): (&String, &SystemTime)| Notification {
            event: "certificate-expiry",
            backend: None,
            certificate: Some(file.clone()),
            reason: format!("the certificate ends at {}: renew it", wall_clock::text(*end)),
            since: end.checked_sub(EXPIRY_NOTICE).unwrap_or(*end),
        };
        new.map(notification).collect()
    }
}

/// Notifies the receiver of every event. Must run on an arbiter, because the HTTP client starts local tasks.
pub(crate) async fn notify(
    webhook: Webhook,
    publisher: Arc<TablePublisher>,
    certificates: Option<Arc<Certificates>>,
) {
    let (sender, receiver) = mpsc::channel(WAITING);
    actix_rt::spawn(deliver(webhook.url, receiver));
    let mut notifier = Notifier::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let table = publisher.latest();
        let wall = SystemTime::now();
        let mut notifications = notifier.observe(&table, webhook.down_after, Instant::now(), wall);
        let ends = certificates.as_ref().map(|certificates| certificates.ends()).unwrap_or_default();
        notifications.extend(notifier.observe_certificates(ends, wall));
        for notification in notifications {
            if let Err(error) = sender.try_send(notification) {
                tracing::error!(%error, "a notification was dropped, because the receiver of the webhook is too slow");
            }
        }
    }
}

async fn deliver(url: Url, mut notifications: mpsc::Receiver<Notification>) {
    let client =
        HttpClient::new(TransportSettings { connect_timeout: TIMEOUT, ..TransportSettings::default() });
    while let Some(notification) = notifications.recv().await {
        // It holds text only, so serialization cannot fail.
        let body = serde_json::to_vec(&notification).unwrap_or_default();
        let request = Request::post_json(url.clone(), body);
        for attempt in 0..ATTEMPTS {
            let answer = tokio::time::timeout(TIMEOUT, client.send(&request)).await;
            let reason = match answer {
                Ok(Ok(answer)) if (200..300).contains(&answer.head.status) => break,
                Ok(Ok(answer)) => format!("it answered with status {}", answer.head.status),
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no answer within {}", humantime::format_duration(TIMEOUT)),
            };
            if attempt + 1 == ATTEMPTS {
                tracing::error!(
                    reason,
                    event = notification.event,
                    "a notification cannot be delivered to the webhook"
                );
            } else {
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
