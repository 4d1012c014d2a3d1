//! fingerpost, a redirect load balancer for downloads: it redirects clients to servers and transfers no file itself.
//!
//! The program has a balancer, a file server and a download client. A library user mounts the balancer and the file
//! server in an actix-web `App`, and can use the HTTP client.
//!
//! # Redirect to mirrors
//! A [`Balancer`](balancer::Balancer) probes and ranks servers on its own thread:
//!
//! ```no_run
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use actix_web::{App, HttpServer};
//! use fingerpost::balancer::Balancer;
//!
//! let balancer =
//!     Balancer::builder().backend("mirror1.example:8080").backend("https://mirror2.example/pub").start()?;
//! let redirects = balancer.redirects();
//! HttpServer::new(move || App::new().default_service(redirects.clone())).bind(("0.0.0.0", 8080))?.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Serve a folder
//! A [`FileServer`](file_server::FileServer) evaluates ranges and conditions, lists folders and sends precompressed
//! files:
//!
//! ```no_run
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use actix_web::{App, HttpServer};
//! use fingerpost::file_server::FileServer;
//!
//! let files = FileServer::builder("/srv/files").listing(true).files()?;
//! HttpServer::new(move || App::new().service(files.at("/files"))).bind(("0.0.0.0", 8081))?.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Fetch a file
//! An [`HttpClient`](http::client::HttpClient) limits the heads of servers and detects bodies that end early:
//!
//! ```no_run
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use fingerpost::http::client::{HttpClient, Request, TransportSettings};
//!
//! let client = HttpClient::new(TransportSettings::default());
//! let mut answer = client.send(&Request::get("http://127.0.0.1:8081/files/plshelp.txt".parse()?)).await?;
//! while let Some(bytes) = answer.chunk().await? {
//!     println!("{} bytes", bytes.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `docs/architecture.md` explains the structure of the code.

use std::process::ExitCode;

use clap::Parser as _;

#[cfg(not(target_os = "linux"))]
compile_error!("fingerpost needs Linux");

pub mod balancer;
mod cli;
mod client;
mod commands;
mod configuration;
mod engine;
pub mod file_server;
mod folder;
mod handover;
mod hex;
mod hosting;
pub mod http;
#[doc(hidden)]
pub mod internals;
mod load_report;
mod open_files;
mod registration;
mod secret_file;
mod settings;
mod supervision;
mod systemd;
mod telemetry;

/// Runs the command on the command line of this process, and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    commands::run(cli::Cli::parse())
}
