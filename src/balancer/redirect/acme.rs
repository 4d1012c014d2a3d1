//! Serves the challenges of certificate authorities (RFC 8555, section 8.3). A redirect would lead the authority to a
//! backend, which does not have them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use actix_http::StatusCode;
use actix_web::HttpResponse;
use actix_web::web::{self, ServiceConfig};

use crate::http::admin::page_route;
use crate::http::pages::Pages;

/// The folder of challenges, in each URL and below the root of a web server.
pub(crate) const FOLDER: &str = "/.well-known/acme-challenge/";

/// The largest challenge in bytes. Known ones have about 90.
const LARGEST: u64 = 4096;

/// Serves the challenges below `root`, which a program such as certbot writes there.
pub(crate) fn serve(config: &mut ServiceConfig, root: &Path, pages: &Pages) {
    let (folder, pages) = (root.join(FOLDER.trim_start_matches('/')), pages.clone());
    let answer = move |token: web::Path<String>| {
        let (folder, pages) = (folder.clone(), pages.clone());
        async move {
            // Another thread waits for the disk.
            match web::block(move || read(&folder, &token)).await {
                Ok(Ok(challenge)) => {
                    HttpResponse::Ok().content_type("application/octet-stream").body(challenge)
                }
                _ => HttpResponse::from(pages.answer(StatusCode::NOT_FOUND).map_into_boxed_body()),
            }
        }
    };
    config.route(&format!("{FOLDER}{{token}}"), page_route().to(answer));
}

fn read(folder: &Path, token: &str) -> io::Result<Vec<u8>> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !token.bytes().all(is_token) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = folder.join(token);
    // A FIFO would make the reader wait.
    if !std::fs::metadata(&path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut challenge = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut challenge)?;
    Ok(challenge)
}
