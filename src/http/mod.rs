//! HTTP for all parts of the program: the client, and for balancer and file server the listeners, connections, syntax
//! of `Host`, error pages, graceful stop and admin pages.

pub mod admin;
pub mod certificates;
pub mod client;
pub mod host;
pub mod https;
pub mod listener;
pub(crate) mod nowait;
pub mod pages;
pub mod stop;
pub mod tls;
pub mod transport;
