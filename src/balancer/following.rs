//! The task that follows the list of backends, the orders and the settings.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::orders::store::{Orders, OrdersChanged};
use super::probe_manager::ProbeManager;
use super::redirect::SettingsChanged;
use super::sources::SourceSet;

/// The interval of the search for orders whose time is over.
const OVERDUE_INTERVAL: Duration = Duration::from_secs(1);

/// Applies every change of the list, of the orders and of the settings to the probe manager.
pub(super) async fn follow(
    sources: SourceSet,
    mut probe_manager: ProbeManager,
    orders: Arc<Orders>,
    mut changes: mpsc::Receiver<OrdersChanged>,
    mut settings_changes: mpsc::Receiver<SettingsChanged>,
) {
    let (mut backends, mut book) = (sources.backends(), orders.book());
    let mut sources = sources.follow();
    probe_manager.replace(&backends, &book).await;
    loop {
        let mut in_force = None;
        tokio::select! {
            list = sources.changed() => backends = list,
            Some(change) = changes.recv() => (book, in_force) = (change.book, Some(change.done)),
            Some(SettingsChanged { ranking, probes, done }) = settings_changes.recv() => {
                probe_manager.change(ranking, probes).await;
                let _ = done.send(());
                continue;
            }
        }
        probe_manager.replace(&backends, &book).await;
        if let Some(in_force) = in_force {
            // The receiver is dropped if the balancer ends.
            let _ = in_force.send(());
        }
    }
}

/// Ends each order at its time.
pub(super) async fn end_overdue_orders(orders: Arc<Orders>) {
    loop {
        tokio::time::sleep(OVERDUE_INTERVAL).await;
        orders.end_overdue(SystemTime::now()).await;
    }
}
