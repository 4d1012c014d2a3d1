//! The redirects as a service of any actix-web application.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;

use actix_service::{Service, ServiceFactory};
use actix_web::dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse};
use actix_web::{HttpMessage as _, HttpResponse};

use super::BalancerState;
use super::location::Mount;
use super::service::RedirectService;
use crate::http::transport::OverTls;

/// Answers requests with redirects in an actix-web application; created by
/// [`Balancer::redirects`](crate::balancer::Balancer::redirects).
///
/// Mount it with `App::default_service` to answer every request that no other service handles, or below a
/// [`web::scope`](actix_web::web::scope). Here one `App` redirects `/dl` to its backends, and serves `/files` from a folder:
///
/// ```
/// use actix_web::{App, HttpServer, test, web};
/// use fingerpost::balancer::Balancer;
/// use fingerpost::file_server::FileServer;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let files = FileServer::builder("files").files()?;
/// // A backend is a file server of any kind.
/// let backend = {
///     let files = files.clone();
///     HttpServer::new(move || App::new().service(files.at("/files"))).workers(1).bind(("127.0.0.1", 0))?
/// };
/// let address = backend.addrs()[0];
/// actix_web::rt::spawn(backend.run());
///
/// let balancer = Balancer::builder()
///     .backend(format!("http://{address}/files"))
///     .probe_path("/plshelp.txt")
///     .start()?;
/// while !balancer.is_ready() {
///     actix_web::rt::time::sleep(std::time::Duration::from_millis(10)).await;
/// }
/// let redirects = balancer.redirects().strip_prefix("/dl");
/// let app = App::new().service(web::scope("/dl").service(redirects)).service(files.at("/files"));
/// let app = test::init_service(app).await;
///
/// let request = test::TestRequest::get().uri("/dl/image.iso").to_request();
/// let answer = test::call_service(&app, request).await;
/// assert_eq!(answer.status(), 301);
/// assert_eq!(answer.headers().get("Location").unwrap(), &format!("http://{address}/files/image.iso"));
///
/// let request = test::TestRequest::get().uri("/files/plshelp.txt").to_request();
/// let answer = test::call_service(&app, request).await;
/// assert_eq!(answer.status(), 200);
/// # Ok(())
/// # }
/// # actix_web::rt::System::new().block_on(example()).unwrap();
/// ```
///
/// `App::service` without a scope works too, but actix-web then answers requests for `*` (`OPTIONS *`) with an empty 404.
///
/// # Differences from `fingerpost balancer`
/// A stock `HttpServer` handles the connections, so these features of `fingerpost balancer` are missing:
/// - the fast path, which answers plain requests directly from the bytes of their head;
/// - error pages for requests that the parser refuses (actix answers them with an empty 400) and for timeouts;
/// - a time limit for every request head (actix has `client_request_timeout` for the first one of a connection);
/// - the limit of connections from one address, and the 503 page beyond a limit;
/// - disconnection of clients that read too slowly.
#[derive(Clone)]
pub struct Redirects {
    shared: Arc<BalancerState>,
    mount: Mount,
}

impl Redirects {
    pub(in crate::balancer) fn new(shared: Arc<BalancerState>) -> Self {
        Self { shared, mount: Mount::default() }
    }

    /// Removes `prefix` from the path of each request before the redirect, for a mount below a scope: with `/dl`, a request
    /// for `/dl/a.iso` is redirected to `/a.iso` of a backend.
    ///
    /// `prefix` must include all outer scopes. It is compared with the undecoded path: a path with another start, such as
    /// `/%64l/a.iso`, gets the 404 page.
    #[must_use]
    pub fn strip_prefix(self, prefix: &str) -> Self {
        Self { mount: Mount { prefix: prefix.trim_end_matches('/').into() }, ..self }
    }

    /// Starts the service and the `RedirectHandler` of one HTTP worker. Must be called on the thread of the worker.
    pub(in crate::balancer) fn start_worker(&self) -> Rc<RedirectService> {
        Rc::new(RedirectService::start(Arc::clone(&self.shared), self.mount.clone()))
    }
}

impl HttpServiceFactory for Redirects {
    fn register(self, config: &mut AppService) {
        let everything =
            if config.is_root() { ResourceDef::root_prefix("") } else { ResourceDef::prefix("") };
        config.register_service(everything, None, self, None);
    }
}

impl ServiceFactory<ServiceRequest> for Redirects {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Config = ();
    type Service = RedirectWorker;
    type InitError = ();
    type Future = Ready<Result<RedirectWorker, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        ready(Ok(RedirectWorker(self.start_worker())))
    }
}

/// The service of one HTTP worker in an `App`.
#[derive(Clone)]
pub struct RedirectWorker(pub(in crate::balancer) Rc<RedirectService>);

impl Service<ServiceRequest> for RedirectWorker {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Ready<Result<ServiceResponse, actix_web::Error>>;

    actix_service::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let is_https = request.app_config().secure() || request.extensions().contains::<OverTls>();
        let answer = HttpResponse::from(self.0.answer(request.head(), is_https).map_into_boxed_body());
        ready(Ok(request.into_response(answer)))
    }
}

#[cfg(test)]
mod tests;
