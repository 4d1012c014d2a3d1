//! What balancer and file server share: listeners, the connection, what a `Host` may be, error pages, the stop, pages for operators.

pub mod admin;
pub mod host;
pub mod listener;
pub mod pages;
pub mod stop;
pub mod tls;
pub mod transport;
