//! What balancer and file server share: listeners, the connection, error pages, the stop.

pub mod listener;
pub mod pages;
pub mod stop;
pub mod tls;
pub mod transport;
