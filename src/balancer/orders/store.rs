//! Keeps the orders on disk and puts them into force.
//!
//! An order is acknowledged only after it is on disk and in the routing table. The file has a backup with the same content,
//! because a lost file would send clients to drained servers again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use super::registers::OrderRegister;
use super::{Order, OrderBook, OrderRecord, TooManyOrders, VersionRecord};
use crate::balancer::backends::BackendId;
use crate::balancer::state_folder::{FileContent, STATE_FILE, StateFolder};

const FILE: &str = "orders.json";

/// Written before [`FILE`] with the same content.
const BACKUP: &str = "orders.backup.json";

/// Exists from a loss of orders until an operator removes it.
const LOSS: &str = "orders.lost";

const VERSION: u32 = 1;

/// The body of the file. Unknown members are ignored.
#[derive(Serialize)]
struct OrdersFile {
    orders: Vec<OrderRecord>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    versions: Vec<VersionRecord>,
}

#[derive(Deserialize)]
struct ReadOrdersFile {
    orders: Vec<serde_json::Value>,
    #[serde(default)]
    versions: Vec<VersionRecord>,
}

/// A book to be put into force by the task that follows the list.
#[derive(Debug)]
pub(crate) struct OrdersChanged {
    /// All orders.
    pub book: Arc<OrderBook>,
    /// Notified once the book is in the routing table.
    pub done: oneshot::Sender<()>,
}

/// The reason why an order is not in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The book is full.
    #[error(transparent)]
    TooMany(#[from] TooManyOrders),
    /// The order cannot be stored.
    #[error("the order cannot be stored, so it is not in force")]
    NotStored(#[source] io::Error),
    /// A new process takes over.
    #[error("a new process is taking over, so the order is not in force: give it again")]
    HandedOver,
    /// The balancer ends.
    #[error("the balancer ends, so the order is not in force")]
    Ended,
}

/// The orders of a balancer.
#[derive(Debug)]
pub(crate) struct Orders {
    book: ArcSwap<OrderBook>,
    folder: Option<Arc<StateFolder>>,
    /// The name of the balancer in its fleet.
    balancer: Option<Arc<str>>,
    changes: mpsc::Sender<OrdersChanged>,
    /// Notified once a change is in force.
    changed: Notify,
    /// Held while a change is stored and put into force.
    changing: Mutex<()>,
    /// Whether a new process has the orders.
    is_handed_over: AtomicBool,
}

impl Orders {
    /// The orders in `folder`, and the receiver of their changes. Without a folder, orders end with the process. `inherited`
    /// orders of the process before this one precede those of the folder. `balancer` is the name in a fleet.
    pub(crate) fn open(
        folder: Option<Arc<StateFolder>>,
        inherited: Option<OrderBook>,
        balancer: Option<Arc<str>>,
        now: SystemTime,
    ) -> (Self, mpsc::Receiver<OrdersChanged>) {
        let book = match (inherited, &folder) {
            (Some(book), Some(folder)) => {
                store_again(folder, &book);
                book
            }
            (Some(book), None) => book,
            (None, folder) => folder.as_ref().map(|folder| load(folder)).unwrap_or_default(),
        };
        let book = book.without_ended(now).unwrap_or(book);
        let (changes, receiver) = mpsc::channel(1);
        let orders = Self {
            book: ArcSwap::from_pointee(book),
            folder,
            balancer,
            changes,
            changed: Notify::new(),
            changing: Mutex::default(),
            is_handed_over: AtomicBool::new(false),
        };
        (orders, receiver)
    }

    /// The orders in force.
    pub(crate) fn book(&self) -> Arc<OrderBook> {
        self.book.load_full()
    }

    /// Whether orders survive a restart.
    pub(crate) fn are_durable(&self) -> bool {
        self.folder.is_some()
    }

    /// The file that reports a loss of orders, if there was one. Orders may have been lost until an operator removes it.
    pub(crate) fn loss(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.file(LOSS)).filter(|path| path.exists())
    }

    /// Stores an order and puts it into force. The caller may be dropped at any time; then both happen, or neither.
    pub(crate) async fn give(
        self: &Arc<Self>,
        backends: Vec<BackendId>,
        order: Order,
        author: String,
    ) -> Result<(), OrderError> {
        let own = Arc::clone(self);
        // A separate task, because the connection of the operator may end before the order is in force.
        let giving = actix_rt::spawn(async move {
            let _turn = own.changing.lock().await;
            if own.is_handed_over() {
                return Err(OrderError::HandedOver);
            }
            let (balancer, now) = (own.balancer.as_deref(), SystemTime::now());
            let book = Arc::new(own.book.load().with(&backends, &order, &author, balancer, now)?);
            own.store(&book).await.map_err(OrderError::NotStored)?;
            own.put_into_force(book).await
        });
        giving.await.unwrap_or(Err(OrderError::Ended))
    }

    /// Puts the newer ones of these registers of the fleet into force. Returns the orders in force, and the own registers that
    /// are newer.
    pub(crate) async fn merge(&self, registers: &[OrderRegister]) -> (Arc<OrderBook>, Vec<OrderRegister>) {
        let _turn = self.changing.lock().await;
        if self.is_handed_over() {
            return (self.book(), Vec::new());
        }
        let (book, newer) = self.book.load().reconcile(registers, SystemTime::now());
        if let Some(book) = book.map(Arc::new) {
            tracing::info!("orders of another balancer are in force");
            if let Err(error) = self.store(&book).await {
                // The fleet keeps them too.
                tracing::error!(%error, "the orders of another balancer cannot be stored");
            }
            // It fails only at the end of the balancer.
            let _ = self.put_into_force(book).await;
        }
        (self.book(), newer)
    }

    async fn store(&self, book: &Arc<OrderBook>) -> io::Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let book = Arc::clone(book);
        let storing = actix_rt::task::spawn_blocking(move || store(&folder, &book)).await;
        storing.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Refuses further orders, and returns those in force, for a new process.
    pub(crate) async fn release(&self) -> Arc<OrderBook> {
        let _turn = self.changing.lock().await;
        self.is_handed_over.store(true, Relaxed);
        self.book()
    }

    /// Whether another process has taken over.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Relaxed)
    }

    /// Accepts orders again. The new process may have stored orders before it failed.
    pub(crate) async fn reclaim(&self) {
        let _turn = self.changing.lock().await;
        if let Some(folder) = &self.folder {
            let _ = self.put_into_force(Arc::new(load(folder))).await;
        }
        self.is_handed_over.store(false, Relaxed);
    }

    /// Ends the orders whose time is over. The next order removes them from the file; a restart ignores them.
    pub(crate) async fn end_overdue(&self, now: SystemTime) {
        if self.book.load().without_ended(now).is_none() {
            return;
        }
        let _turn = self.changing.lock().await;
        if let Some(book) = self.book.load().without_ended(now) {
            tracing::info!("orders have reached their end");
            // It fails only at the end of the balancer.
            let _ = self.put_into_force(Arc::new(book)).await;
        }
    }

    async fn put_into_force(&self, book: Arc<OrderBook>) -> Result<(), OrderError> {
        self.book.store(Arc::clone(&book));
        let (done, is_done) = oneshot::channel();
        self.changes.send(OrdersChanged { book, done }).await.map_err(|_| OrderError::Ended)?;
        is_done.await.map_err(|_| OrderError::Ended)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next change since the previous call. For one caller.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn store(folder: &StateFolder, book: &OrderBook) -> io::Result<()> {
    let body = serde_json::to_vec_pretty(&OrdersFile { orders: book.records(), versions: book.versions() })?;
    folder.write(BACKUP, VERSION, &body)?;
    folder.write(FILE, VERSION, &body)
}

/// Reads the orders. Reports every loss, and continues with the orders that are left.
fn load(folder: &StateFolder) -> OrderBook {
    let mut damaged = Vec::new();
    for name in [FILE, BACKUP] {
        match folder.read(name) {
            FileContent::Valid { version, body } => match serde_json::from_slice::<ReadOrdersFile>(&body) {
                Ok(body) => {
                    let (book, unreadable) = OrderBook::from_records(body.orders);
                    let book = book.with_versions(body.versions);
                    if unreadable > 0 {
                        folder.set_aside(name, "it holds orders of another version");
                        report_loss(
                            folder,
                            &format!("{unreadable} orders of version {version} cannot be read"),
                        );
                    }
                    if unreadable > 0 || folder.read(FILE) != folder.read(BACKUP) {
                        store_again(folder, &book);
                    }
                    return book;
                }
                Err(error) => {
                    folder.set_aside(name, &error.to_string());
                    damaged.push(format!("{name}: {error}"));
                }
            },
            FileContent::Missing => damaged.push(format!("{name} is missing")),
            FileContent::Damaged(reason) => {
                folder.set_aside(name, &reason);
                damaged.push(format!("{name}: {reason}"));
            }
        }
    }
    // A new folder has neither orders nor state. If it has state, it had orders.
    let is_new = [FILE, BACKUP].iter().all(|name| damaged.contains(&format!("{name} is missing")))
        && !folder.file(STATE_FILE).exists();
    if !is_new {
        report_loss(folder, &damaged.join("; "));
    }
    let book = OrderBook::default();
    store_again(folder, &book);
    book
}

fn store_again(folder: &StateFolder, book: &OrderBook) {
    if let Err(error) = store(folder, book) {
        tracing::error!(%error, "the orders cannot be stored");
    }
}

fn report_loss(folder: &StateFolder, reason: &str) {
    let file = folder.file(LOSS);
    tracing::error!(reason, file = %file.display(), "orders of operators were lost: drained servers may get clients again");
    if let Err(error) = std::fs::write(&file, format!("{reason}\n")) {
        tracing::error!(%error, file = %file.display(), "the loss of orders cannot be recorded");
    }
}

#[cfg(test)]
mod tests;
