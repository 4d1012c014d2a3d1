//! The real binary, on free ports, against real and misbehaving peers.
//!
//! A story starts what it needs through [`support`] and waits for conditions, never for time to pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]
#![allow(unreachable_pub, reason = "nothing of a test program can be reached from outside")]
#![allow(clippy::disallowed_types, reason = "these tests wait for real processes in real time")]

mod actors;
mod choosing;
mod cli;
mod client;
mod client_disk;
mod client_doubt;
mod client_evidence;
mod client_failover;
mod client_files;
mod client_hostile;
mod client_http;
mod client_integrity;
mod client_kept;
mod client_metalink;
mod client_names;
mod client_output;
mod client_parts;
mod client_patience;
mod client_resume;
mod client_small;
mod client_tls;
mod client_wait;
mod documents;
mod engine_faults;
mod failover;
mod geography;
mod handover;
mod help;
mod import;
mod live_list;
mod malformed;
mod metrics;
mod mirrors;
mod network;
mod openapi;
mod orders;
mod page;
mod probing;
mod redirect;
mod registration;
mod reload;
mod scans;
mod seed;
mod server;
mod sharing;
mod shortage;
mod size_lookups;
mod sockets;
mod sources;
mod state;
mod statistics;
mod support;
mod support_works;
mod terminal;
mod tls;
mod up;
mod weighing;
