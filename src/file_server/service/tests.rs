use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::test::{self, TestRequest};
use actix_web::{App, web};

use super::*;
use crate::file_server::FileServer;

const LARGE: usize = 300_000;

fn bytes() -> Vec<u8> {
    (0..LARGE).map(|at| (at % 251) as u8).collect()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/index.html"), "index").unwrap();
    std::fs::write(folder.path().join("small.txt"), "0123456789").unwrap();
    std::fs::write(folder.path().join("large.bin"), bytes()).unwrap();
    folder
}

/// Answers of an application that mounts a folder below `/dl`, at its top, and in a scope.
async fn ask(files: &FileService, request: TestRequest) -> (StatusCode, HeaderMap, Vec<u8>) {
    let app = App::new()
        .service(files.at("/dl"))
        .service(web::scope("/scope").default_service(files.at("/scope")))
        .default_service(files.clone());
    let app = test::init_service(app).await;
    let answer: ServiceResponse = test::call_service(&app, request.to_request()).await;
    let (status, headers) = (answer.status(), answer.headers().clone());
    (status, headers, test::read_body(answer).await.to_vec())
}

fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

#[test]
fn a_folder_can_be_mounted_below_a_path_in_a_scope_and_as_the_default() {
    let folder = folder();
    let files = FileServer::builder(folder.path()).files().unwrap();
    run(async {
        for target in ["/dl/small.txt", "/scope/small.txt", "/small.txt", "/dl/files/small.txt"] {
            let (status, _, body) = ask(&files, TestRequest::get().uri(target)).await;
            assert_eq!((status, &*body), (StatusCode::OK, &b"0123456789"[..]), "{target}");
        }
        for target in
            ["/dl/dl/small.txt", "/dlsmall.txt", "/dl/../small.txt", "/scope/nothing", "/%64l/small.txt"]
        {
            let (status, _, body) = ask(&files, TestRequest::get().uri(target)).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{target}");
            assert!(String::from_utf8(body).unwrap().contains("404 Not Found"), "{target}");
        }
        for (target, location) in
            [("/dl", "/dl/"), ("/dl/sub?a", "/dl/sub/?a"), ("/scope/sub", "/scope/sub/")]
        {
            let (status, headers, _) = ask(&files, TestRequest::get().uri(target)).await;
            assert_eq!(status, StatusCode::MOVED_PERMANENTLY, "{target}");
            assert_eq!(headers.get(header::LOCATION).unwrap(), location);
        }
        let (status, ..) = ask(&files, TestRequest::post().uri("/dl/small.txt")).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    });
}

#[test]
fn a_large_file_is_streamed_whole_and_in_parts() {
    let folder = folder();
    let files = FileServer::builder(folder.path()).files().unwrap();
    let bytes = bytes();
    run(async {
        let get = || TestRequest::get().uri("/dl/large.bin");
        let (status, headers, body) = ask(&files, get()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body == bytes);
        let tag = headers.get(header::ETAG).unwrap().clone();
        let (status, _, body) = ask(&files, get().insert_header(("Range", "bytes=100000-250000"))).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert!(body == bytes[100_000..=250_000]);
        let (status, headers, body) =
            ask(&files, get().insert_header(("Range", "bytes=0-9,200000-299999"))).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert!(headers.get(header::CONTENT_TYPE).unwrap().to_str().unwrap().starts_with("multipart/"));
        assert!(memchr::memmem::find(&body, &bytes[200_000..]).is_some() && body.len() < 101_000);
        let (status, _, body) = ask(&files, get().insert_header(("If-None-Match", tag))).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        let (status, headers, _) =
            ask(&files, TestRequest::with_uri("/dl/large.bin").method(actix_http::Method::HEAD)).await;
        assert_eq!(
            (status, headers.get(header::ACCEPT_RANGES).unwrap()),
            (StatusCode::OK, &header::HeaderValue::from_static("bytes"))
        );
        let load = &files.shared.load;
        assert_eq!((load.in_flight(), load.completed(), load.aborted()), (0, 4, 0));
    });
}

#[test]
fn the_request_is_restored_after_the_answer() {
    let folder = folder();
    let files = FileServer::builder(folder.path()).files().unwrap();
    run(async {
        let app = test::init_service(App::new().service(files.at("/dl"))).await;
        let lines = [("Range", "bytes=5-6, 0-1"), ("If-Range", "\"a\""), ("If-None-Match", "\"b\", \"c\"")];
        let request = lines
            .iter()
            .fold(TestRequest::get().uri("/dl/small.txt"), |request, line| request.insert_header(*line));
        let answer = test::call_service(&app, request.to_request()).await;
        for (name, value) in lines {
            assert_eq!(answer.request().headers().get(name).unwrap(), value);
        }
    });
}
