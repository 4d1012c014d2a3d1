//! An actix-web application of its own that offers downloads: redirects to mirrors below `/dl`, its own copy of the
//! files below `/files`, and its own pages.
//!
//! ```console
//! $ cargo run --release --example embed
//! $ curl -i http://127.0.0.1:8080/dl/plshelp.txt
//! ```

use std::io;

use actix_web::web::{self, Data, Json};
use actix_web::{App, HttpResponse, HttpServer, Responder, get};
use fingerpost::balancer::{Balancer, StatusReport};
use fingerpost::file_server::FileServer;

#[get("/")]
async fn index() -> impl Responder {
    web::Html::new(
        "<p>Download <a href=\"/dl/plshelp.txt\">a file</a>, or see the <a href=\"/mirrors\">mirrors</a>.",
    )
}

#[get("/mirrors")]
async fn mirrors(balancer: Data<Balancer>) -> Json<StatusReport> {
    Json(balancer.status())
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    // The list names the servers, one `host:port` a line, and may change at any time.
    let balancer =
        Balancer::builder().list_file("balancer_server_list.txt").start().map_err(io::Error::other)?;
    let redirects = balancer.redirects().strip_prefix("/dl");
    let balancer = Data::new(balancer);
    let files = FileServer::builder("files").listing(true).files().map_err(io::Error::other)?;
    println!("Serving http://127.0.0.1:8080/");
    HttpServer::new(move || {
        App::new()
            .app_data(balancer.clone())
            .service(web::scope("/dl").service(redirects.clone()))
            .service(files.at("/files"))
            .service(index)
            .service(mirrors)
            .default_service(web::to(HttpResponse::NotFound))
    })
    .bind(("127.0.0.1", 8080))?
    .run()
    .await
}
