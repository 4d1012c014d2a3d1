//! actix-files without changes, on one worker, for comparison with the file server of this project.
//!
//! `actix-files FOLDER PORT`; `bench/files/run.py` starts it.

use actix_files::Files;
use actix_web::{App, HttpServer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [folder, port] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "FOLDER PORT")?;
    let port: u16 = port.parse()?;
    let serving = async move {
        HttpServer::new(move || App::new().service(Files::new("/", &folder)))
            .workers(1)
            .bind(("127.0.0.1", port))?
            .run()
            .await
    };
    Ok(actix_web::rt::System::new().block_on(serving)?)
}
