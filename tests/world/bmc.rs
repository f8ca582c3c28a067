//! A BMC that speaks Redfish, and as many lies as a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::http::{Server, lock};
use crate::machine::Machine;

/// What it says of its machine, and whether it obeys. Slow and dead ones are had from the fault layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Truth,
    /// On, whatever is, and it switches nothing off.
    AlwaysOn,
    /// Off, whatever is, and it switches nothing off.
    AlwaysOff,
}

/// The running BMC. It ends when it is dropped.
#[derive(Debug)]
pub struct Bmc {
    pub address: SocketAddr,
    pub http: Arc<Server>,
    board: Arc<Board>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Board {
    machine: Arc<Machine>,
    says: Mutex<Says>,
    system: Mutex<Option<Uuid>>,
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Bmc {
    /// Of this machine: what it is told to switch off is this one, whatever it says.
    pub async fn of(machine: &Arc<Machine>) -> Self {
        let (says, system) = (Mutex::new(Says::Truth), Mutex::new(Some(machine.system)));
        let board = Arc::new(Board { machine: Arc::clone(machine), says, system });
        let routes = Router::new()
            .route("/redfish/v1/Systems", get(systems))
            .route("/redfish/v1/Systems/{id}", get(one_system))
            .route("/redfish/v1/Systems/{id}/Actions/ComputerSystem.Reset", post(reset))
            .with_state(Arc::clone(&board));
        let http = Server::new(routes);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(accept(listener, Arc::clone(&http)));
        Self { address, http, board, accepting }
    }

    pub fn says(&self, says: Says) {
        *lock(&self.board.says) = says;
    }

    /// The UUID that it says its machine has.
    pub fn names(&self, system: Option<Uuid>) {
        *lock(&self.board.system) = system;
    }

    /// How often it was told to switch its machine off.
    pub fn power_offs(&self) -> usize {
        self.http.seen(&axum::http::Method::POST, "ComputerSystem.Reset").len()
    }
}

async fn accept(listener: TcpListener, http: Arc<Server>) {
    while let Ok((connection, _)) = listener.accept().await {
        let http = Arc::clone(&http);
        tokio::spawn(async move { http.serve(connection).await });
    }
}

async fn systems() -> Json<Value> {
    Json(json!({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]}))
}

async fn one_system(State(board): State<Arc<Board>>, Path(_): Path<String>) -> Json<Value> {
    let power = match (*lock(&board.says), board.machine.is_on()) {
        (Says::AlwaysOn, _) | (Says::Truth, true) => "On",
        (Says::AlwaysOff, _) | (Says::Truth, false) => "Off",
    };
    let reset = json!({
        "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
        "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown"],
    });
    let system = *lock(&board.system);
    Json(json!({"Id": "1", "PowerState": power, "UUID": system, "Actions": {"#ComputerSystem.Reset": reset}}))
}

async fn reset(State(board): State<Arc<Board>>, Path(_): Path<String>, Json(body): Json<Value>) -> Response {
    let obeys = *lock(&board.says) == Says::Truth;
    match body["ResetType"].as_str() {
        Some("ForceOff") if obeys => board.machine.power_off(),
        Some("On") if obeys => board.machine.power_on(),
        Some("ForceOff" | "On") => {}
        _ => return StatusCode::BAD_REQUEST.into_response(),
    }
    StatusCode::NO_CONTENT.into_response()
}
