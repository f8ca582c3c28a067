//! The API: what is seen and recorded, as JSON. Everybody on the machine may read it over TCP; orders are taken over the control socket alone,
//! where the kernel says who gives them.
//!
//! docs/api.md describes it for operators.

mod ask;
mod caller;
mod error;
mod hosts;
mod incidents;
mod listen;
mod orders;
mod plan;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Json, Router};
use failover::Time;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::store::{Store, rfc3339};

pub use caller::Peer;
pub use error::ApiError;
pub use listen::{ListenError, Listeners, bind, serve};

/// No order is longer.
const LONGEST_BODY_BYTES: usize = 64 * 1024;

/// Where a request came in.
#[derive(Debug, Clone)]
pub enum Door {
    /// The control socket: orders are taken.
    Control,
    /// Anywhere else. Who would give orders is told where to.
    ReadOnly { control_socket: PathBuf },
}

/// What every answer is made from.
#[derive(Debug, Clone)]
struct Api {
    desk: Desk,
    store: Store,
    door: Arc<Door>,
    pulse: Arc<view::Pulse>,
}

/// All routes. On the control socket it needs [`Peer`] as connect info.
pub fn router(desk: Desk, store: Store, door: Door) -> Router {
    let api = Api { desk, store, door: Arc::new(door), pulse: Arc::default() };
    Router::new()
        .route("/", get(root))
        .route("/healthcheck", get(view::healthcheck))
        .route("/v2/hosts", get(hosts::list))
        .route("/v2/incidents", get(incidents::list))
        .route("/v2/incidents/{id}", get(incidents::show))
        .route("/v2/plan/{host}", get(plan::show))
        .route("/v2/arm", post(orders::arm))
        .route("/v2/disarm", post(orders::disarm))
        .route("/v2/incidents/{id}/release", post(orders::release))
        .route("/v2/hosts/{host}/fence", post(orders::fence))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(LONGEST_BODY_BYTES))
        .with_state(api)
}

async fn root() -> Json<Value> {
    Json(json!({ "name": "tandem-ha", "version": env!("CARGO_PKG_VERSION"), "apis": ["/v2"] }))
}

/// RFC 3339, UTC, with microseconds.
#[derive(Debug, Clone, Copy)]
struct At(Time);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}
