//! The embedded arbiter as a process serves it: JSON over HTTP in front of one [`Store`].
//!
//! ```text
//! GET  /v1/status                      {incarnation, version}
//! GET  /v1/volumes?after=UUID          {incarnation, volumes: [{volume, record}]}, 500 at a time
//! GET  /v1/volumes/UUID                {incarnation, record | null}
//! POST /v1/volumes/UUID                {"swap": {expected, proposed}}, or create, remove, rebuild
//!                                      -> "done" | {"refused": record} | "missing" | {"declined": why} | {"failed": why}
//! GET  /v1/fences                      {incarnation, version, list}
//! PUT  /v1/fences                      {version, list}; the version is the one expected to be there
//!                                      -> "done" | {"refused": {...}} | {"declined": why} | {"failed": why}
//! ```
//!
//! "failed" settles nothing; with it the arbiter ends, and its next start shows what is on the disk.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use replication::{Record, VolumeId};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::info;
use uuid::Uuid;

use super::caller::{Caller, Deed};
use super::store::{Changed, FenceDocument, Store, StoreError};
use super::{Change, Fence, form, listen};

/// Records in one answer of the list.
const PAGE: u32 = 500;

/// Where the embedded arbiter keeps its store and listens.
#[derive(Debug, Clone)]
pub struct ArbiterConfig {
    /// Must be there; for this arbiter alone.
    pub directory: PathBuf,
    /// Port 0: any that is free.
    pub listen: SocketAddr,
    /// Must verify certificates of clients. None: only on loopback, and everybody on this machine may do everything.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Why the arbiter did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ArbiterError {
    #[error("the arbiter would listen on {listen} in the clear: give it a certificate, or let it listen on 127.0.0.1")]
    InTheClear { listen: SocketAddr },
    #[error("the arbiter cannot listen on {listen}: choose an address of this machine that is free")]
    Listen {
        listen: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bound and opened, and not yet served.
#[derive(Debug)]
pub struct Arbiter {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    store: Store,
}

impl Arbiter {
    /// Errors: an address that cannot be had, a store that cannot be used ([`StoreError`]).
    pub async fn bind(config: ArbiterConfig) -> Result<Self, ArbiterError> {
        let ArbiterConfig { directory, listen, tls } = config;
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(ArbiterError::InTheClear { listen });
        }
        // The store first: whoever reaches the port is answered.
        let store = Store::open(&directory).await?;
        let failed = |source| ArbiterError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls, store })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until `shutdown`, or until the store fails. What is on its way may end, for five seconds.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ArbiterError> {
        let Self { listener, address, tls, store } = self;
        info!(%address, incarnation = %store.incarnation(), "the arbiter serves");
        let (broke, mut broken) = mpsc::channel(1);
        let router = router(Arc::new(Desk { store, broke }));
        let mut end = Ok(());
        let until = async {
            tokio::select! {
                () = shutdown => {}
                Some(error) = broken.recv() => end = Err(ArbiterError::Store(error)),
            }
        };
        listen::serve(listener, tls, router, until).await;
        end
    }
}

/// The embedded arbiter, from start to end: [`Arbiter::bind`], then [`Arbiter::serve`].
pub async fn serve(config: ArbiterConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), ArbiterError> {
    Arbiter::bind(config).await?.serve(shutdown).await
}

#[derive(Debug)]
struct Desk {
    store: Store,
    /// Ends the process: a store that failed once is not asked again.
    broke: mpsc::Sender<StoreError>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) incarnation: Uuid,
    pub(super) version: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VolumeAnswer {
    pub(super) incarnation: Uuid,
    #[serde(with = "form::optional")]
    pub(super) record: Option<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListAnswer {
    pub(super) incarnation: Uuid,
    pub(super) volumes: Vec<Listed>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) volume: Uuid,
    #[serde(with = "form::record")]
    pub(super) record: Record,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FencesAnswer {
    pub(super) incarnation: Uuid,
    pub(super) version: u64,
    pub(super) list: Vec<Fence>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FencesChange {
    pub(super) version: u64,
    pub(super) list: Vec<Fence>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said<T> {
    Done,
    Refused(T),
    Missing,
    /// Not even tried.
    Declined(String),
    /// Tried, and how it ended is not known.
    Failed(String),
}

/// The record that is there instead.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct There(#[serde(with = "form::record")] pub(super) Record);

type Answered<T> = Result<Json<T>, Problem>;

/// An answer without what was asked for.
#[derive(Debug)]
struct Problem(StatusCode, Said<()>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl Problem {
    fn declined(status: StatusCode, why: impl Into<String>) -> Self {
        Self(status, Said::Declined(why.into()))
    }
}

fn router(desk: Arc<Desk>) -> Router {
    let nothing = || async { Problem::declined(StatusCode::NOT_FOUND, "the arbiter has no such path") };
    let no_method = || async { Problem::declined(StatusCode::METHOD_NOT_ALLOWED, "not by this method") };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/volumes", get(list))
        .route("/v1/volumes/{volume}", get(read).post(change))
        .route("/v1/fences", get(fences).put(change_fences))
        .fallback(nothing)
        .method_not_allowed_fallback(no_method)
        .with_state(desk)
}

async fn status(State(desk): State<Arc<Desk>>, Extension(caller): Extension<Caller>) -> Answered<Status> {
    allow(&caller, Deed::Read)?;
    Ok(Json(Status { incarnation: desk.incarnation(), version: env!("CARGO_PKG_VERSION").to_owned() }))
}

#[derive(Debug, Deserialize)]
struct After {
    after: Option<Uuid>,
}

async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<After>, QueryRejection>,
) -> Answered<ListAnswer> {
    allow(&caller, Deed::Read)?;
    let Query(After { after }) = query.map_err(|error| Problem::declined(error.status(), error.body_text()))?;
    let after = after.map(|volume| VolumeId(volume.as_u128()));
    let records = settled(&desk, |desk| async move { desk.store.list(after, PAGE).await }).await?;
    let listed = |(volume, record): (VolumeId, Record)| Listed { volume: Uuid::from_u128(volume.0), record };
    Ok(Json(ListAnswer { incarnation: desk.incarnation(), volumes: records.into_iter().map(listed).collect() }))
}

async fn read(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    volume: Result<Path<Uuid>, PathRejection>,
) -> Answered<VolumeAnswer> {
    allow(&caller, Deed::Read)?;
    let volume = named(volume)?;
    let record = settled(&desk, |desk| async move { desk.store.read(volume).await }).await?;
    Ok(Json(VolumeAnswer { incarnation: desk.incarnation(), record }))
}

async fn change(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    volume: Result<Path<Uuid>, PathRejection>,
    change: Result<Json<Change>, JsonRejection>,
) -> Result<Response, Problem> {
    let volume = named(volume)?;
    let Json(change) = change.map_err(|error| Problem::declined(error.status(), error.body_text()))?;
    allow(&caller, Deed::from(&change))?;
    if let Some(why) = change.misfit() {
        return Err(Problem::declined(StatusCode::BAD_REQUEST, why));
    }
    let told = change.to_string();
    let changed = settled(&desk, |desk| async move { desk.store.change(volume, &change).await }).await?;
    Ok(match changed {
        Changed::Done => {
            info!(%volume, by = %caller, "done: {told}");
            Json(Said::<There>::Done).into_response()
        }
        Changed::Refused(there) => {
            info!(%volume, by = %caller, "refused: {told}; there is ({there})");
            (StatusCode::CONFLICT, Json(Said::Refused(There(*there)))).into_response()
        }
        Changed::Missing => {
            info!(%volume, by = %caller, "refused: {told}; there is no record");
            (StatusCode::NOT_FOUND, Json(Said::<There>::Missing)).into_response()
        }
    })
}

async fn fences(State(desk): State<Arc<Desk>>, Extension(caller): Extension<Caller>) -> Answered<FencesAnswer> {
    allow(&caller, Deed::Read)?;
    let document = settled(&desk, |desk| async move { desk.store.fences().await }).await?;
    Ok(Json(desk.fences_answer(document)))
}

async fn change_fences(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    change: Result<Json<FencesChange>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(change) = change.map_err(|error| Problem::declined(error.status(), error.body_text()))?;
    let FencesChange { version, list } = change;
    allow(&caller, Deed::ChangeFences)?;
    let hosts = list.iter().map(|fence| fence.host.as_str()).collect::<Vec<_>>().join(", ");
    let changed = settled(&desk, |desk| async move { desk.store.change_fences(version, list).await }).await?;
    Ok(match changed {
        Ok(()) => {
            info!(by = %caller, "fenced hosts, version {}: {hosts}", version + 1);
            Json(Said::<FencesAnswer>::Done).into_response()
        }
        Err(there) => (StatusCode::CONFLICT, Json(Said::Refused(desk.fences_answer(there)))).into_response(),
    })
}

impl Desk {
    fn incarnation(&self) -> Uuid {
        Uuid::from_u128(self.store.incarnation().0)
    }

    fn fences_answer(&self, document: FenceDocument) -> FencesAnswer {
        FencesAnswer { incarnation: self.incarnation(), version: document.version, list: document.list }
    }
}

fn allow(caller: &Caller, deed: Deed) -> Result<(), Problem> {
    match caller.may(deed) {
        true => Ok(()),
        false => Err(Problem::declined(StatusCode::FORBIDDEN, format!("{caller} may not {deed}"))),
    }
}

fn named(volume: Result<Path<Uuid>, PathRejection>) -> Result<VolumeId, Problem> {
    match volume {
        Ok(Path(volume)) => Ok(VolumeId(volume.as_u128())),
        Err(error) => Err(Problem::declined(StatusCode::BAD_REQUEST, error.body_text())),
    }
}

/// In a task of its own: a client that hangs up must not stop a change half way.
async fn settled<T, F, W>(desk: &Arc<Desk>, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce(Arc<Desk>) -> W,
    W: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let failed = |why| Problem(StatusCode::INTERNAL_SERVER_ERROR, Said::Failed(why));
    let (broke, work) = (desk.broke.clone(), work(desk.clone()));
    let done = tokio::spawn(async move {
        let result = work.await;
        result.map_err(|error| {
            let why = error.to_string();
            // A second error finds the channel full: the first one is the cause.
            let _ = broke.try_send(error);
            why
        })
    });
    done.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
}
