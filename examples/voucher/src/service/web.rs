//! HTTP around the taps, and the service's beginning and end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::audit::Audit;
use super::config::Config;
use super::problem::Problem;
use super::taps::{Answer, Shared, TapId};
use crate::keys::Holder;
use crate::scheme::Scheme;

/// The longest body: a receipt with all that a script of this scheme can bring, and room to spare.
pub const MAX_BODY: usize = 2048;
/// A terminal that takes longer to send such a body has lost its connection.
const BODY_WITHIN: Duration = Duration::from_secs(2);
/// How often taps that are over are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(1);

type Service = Arc<Shared>;

/// A service that runs. Dropped without [`Running::stop`], it ends at once.
pub struct Running {
    address: SocketAddr,
    shared: Service,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    tidying: JoinHandle<()>,
}

/// Starts the service on `address`; port 0 takes any free one.
///
/// # Errors
/// Two terminals share an initial key, the address is taken, or the system gives no random numbers.
pub async fn start(
    config: Config,
    holder: Arc<dyn Holder>,
    audit: Audit,
    address: SocketAddr,
) -> std::io::Result<Running> {
    if !config.no_key_is_shared() {
        let text = "two terminals have the same initial key: each could speak for the other";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    let scheme = Scheme::new().map_err(std::io::Error::other)?;
    let shared = Shared::new(config, scheme, holder, audit).map_err(std::io::Error::other)?;
    let shared = Arc::new(shared);
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let app = router(Arc::clone(&shared));
    let serving = tokio::spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(async {
            // A sender that was dropped stops it too.
            let _ = stopped.await;
        });
        server.await
    });
    let tidied = Arc::downgrade(&shared);
    let tidying = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TIDY_EVERY);
        loop {
            ticks.tick().await;
            match tidied.upgrade() {
                Some(shared) => shared.tidy(),
                None => return,
            }
        }
    });
    Ok(Running {
        address,
        shared,
        stop,
        serving,
        tidying,
    })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new tap from now on.
    pub fn wind_down(&self) {
        self.shared.wind_down();
    }

    /// Takes no new tap, lets those in progress come to their end and receipts come in (no longer than
    /// its patience), and stops. Which scripts are without a receipt then is in the audit log.
    ///
    /// # Errors
    /// The server had failed before, or the audit log cannot be written.
    pub async fn stop(self) -> std::io::Result<()> {
        self.wind_down();
        let patience = self.shared.config.patience;
        let until = tokio::time::Instant::now() + patience;
        while self.shared.in_progress() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tidying.abort();
        let _ = self.stop.send(());
        let mut serving = self.serving;
        let served = match tokio::time::timeout(patience, &mut serving).await {
            Ok(ended) => ended.map_err(std::io::Error::other)?,
            // Somebody holds a connection open.
            Err(_) => {
                serving.abort();
                Ok(())
            }
        };
        let given_up = self.shared.give_up_all();
        given_up.map_err(|problem| std::io::Error::other(problem.to_string()))?;
        served
    }
}

fn router(shared: Service) -> Router {
    Router::new()
        .route("/v1/taps", post(tap))
        .route("/v1/taps/{id}/proof", post(proof))
        .route("/v1/taps/{id}/receipt", post(receipt))
        .route("/v1/taps/{id}/frame", post(frame))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "path", "there is nothing here"))
        .method_not_allowed_fallback(async || {
            let text = "this path is asked in another way";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", text)
        })
        .with_state(shared)
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let body = tokio::time::timeout(BODY_WITHIN, to_bytes(request.into_body(), MAX_BODY));
    match body.await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "size",
            format!("the body is longer than {MAX_BODY} bytes, or was cut off"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body",
            "the body did not arrive in time",
        )),
    }
}

fn tap_id(text: &str) -> Result<TapId, Problem> {
    let number = u128::from_str_radix(text, 16).map_err(|_| Problem::no_such_tap())?;
    Ok(number.to_be_bytes())
}

fn respond(answer: Answer) -> Result<Response, Problem> {
    let status = match answer.tap {
        Some(_) => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    let mut response = (status, answer.message).into_response();
    let headers = response.headers_mut();
    if let Some(tap) = answer.tap {
        let location = format!("/v1/taps/{:032x}", u128::from_be_bytes(tap));
        let location = HeaderValue::try_from(location).map_err(Problem::internal)?;
        headers.insert(header::LOCATION, location);
    }
    if let Some(verdict) = answer.verdict {
        let verdict = HeaderValue::try_from(verdict).map_err(Problem::internal)?;
        headers.insert("voucher-verdict", verdict);
    }
    Ok(response)
}

async fn tap(State(shared): State<Service>, request: Request) -> Result<Response, Problem> {
    let body = body(request).await?;
    respond(shared.answer(&body).await?)
}

async fn proof(
    State(shared): State<Service>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, body) = (tap_id(&id)?, body(request).await?);
    respond(shared.proof(id, &body)?)
}

async fn receipt(
    State(shared): State<Service>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, body) = (tap_id(&id)?, body(request).await?);
    respond(shared.receipt(id, &body)?)
}

async fn frame(
    State(shared): State<Service>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, body) = (tap_id(&id)?, body(request).await?);
    respond(shared.frame(id, &body).await?)
}

async fn health(State(shared): State<Service>) -> Result<&'static str, Problem> {
    shared.health().await?;
    Ok("ok\n")
}

async fn metrics(State(shared): State<Service>) -> Result<Response, Problem> {
    shared.tidy();
    let page = shared.metrics.page()?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}
