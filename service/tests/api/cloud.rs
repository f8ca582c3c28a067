//! Three hosts, one of them dead; and a conductor that does nothing but what it is ordered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use failover::{
    BootId, BootSeen, Channel, ChannelKind, Decision, Host, HostSeen, IncidentId, InstanceId, InstanceSeen,
    InstancesSeen, Ledger, Listing, NovaSeen, Observation, Policy, Power, PowerSeen, ServiceSeen, Task, Time, VmState,
    disabled_reason, order,
};
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tandem_ha::api::{Door, Peer, router};
use tandem_ha::desk::{Board, Desk, OrderError, Request};
use tandem_ha::store::Store;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

/// 2026-11-18T11:06:40.123Z
pub(crate) const NOW: Time = Time(1_795_000_000_123);

pub(crate) fn host(service: u128, name: &str) -> Host {
    Host { service, name: name.into() }
}

pub(crate) fn well() -> Host {
    host(1, "cmp1")
}

pub(crate) fn dead() -> Host {
    host(2, "cmp2")
}

pub(crate) fn odd() -> Host {
    host(3, "odd näme/3")
}

pub(crate) struct Cloud {
    pub(crate) control: Router,
    pub(crate) read_only: Router,
    pub(crate) desk: Desk,
    pub(crate) store: Store,
    pub(crate) directory: TempDir,
    board: Arc<watch::Sender<Arc<Board>>>,
    /// One at a time changes the ledger.
    pen: Arc<tokio::sync::Mutex<()>>,
    conductor: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Cloud {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("ha.sqlite")).await.unwrap();
        let board = Board { now: NOW, seen: seen(), ledger: Ledger::default(), policy: Policy::default() };
        let (board, shown) = watch::channel(Arc::new(board));
        let (requests, asked) = mpsc::channel(4);
        let (board, pen) = (Arc::new(board), Arc::default());
        let conductor = conduct(Arc::clone(&board), store.clone(), Arc::clone(&pen), asked);
        let desk = Desk::new(shown, requests);
        let door = Door::ReadOnly { control_socket: "/run/tandem/ha.sock".into() };
        let read_only = router(desk.clone(), store.clone(), door);
        let control = router(desk.clone(), store.clone(), Door::Control);
        let control = control.layer(MockConnectInfo(Peer::new(4_000_000_000, Some(42))));
        let conductor = Mutex::new(Some(tokio::spawn(conductor)));
        Self { control, read_only, desk, store, directory, board, pen, conductor }
    }

    pub(crate) fn change(&self, edit: impl FnOnce(&mut Board)) {
        self.board.send_modify(|board| edit(Arc::make_mut(board)));
    }

    /// Records and shows, as the conductor does.
    pub(crate) async fn decide(&self, decisions: &[Decision]) {
        let _pen = self.pen.lock().await;
        take(&self.board, &self.store, decisions).await;
    }

    pub(crate) async fn outage(&self) -> IncidentId {
        let id = IncidentId { host: dead(), outage: 1 };
        let why = "nothing is heard of it on mgmt".into();
        self.decide(&[Decision::Open { id: id.clone(), why }]).await;
        id
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let (status, _, answer) = ask(&self.control, method, path, body).await;
        (status, answer)
    }

    /// From the port that only reads, which must answer as the control socket does.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, _, answer) = ask(&self.read_only, "GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        assert_eq!(self.ask("GET", path, "").await, (StatusCode::OK, answer.clone()), "both doors show the same");
        answer
    }

    pub(crate) async fn by_hand(&self, sql: &str) {
        let path = self.directory.path().join("ha.sqlite");
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("ha.sock")
    }

    /// The conductor ends, as it does before the API at shutdown.
    pub(crate) fn end_conductor(&self) {
        self.conductor.lock().unwrap().take().unwrap().abort();
    }
}

pub(crate) async fn ask(door: &Router, method: &str, path: &str, body: &str) -> (StatusCode, HeaderMap, Value) {
    let request = HttpRequest::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let (parts, body) = door.clone().oneshot(request).await.unwrap().into_parts();
    assert_eq!(parts.headers["content-type"], "application/json", "{method} {path}");
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
}

/// The message of an error that has the form that all errors have.
pub(crate) fn sentence(answer: &Value) -> &str {
    let error = answer["error"].as_object().unwrap_or_else(|| panic!("no error: {answer}"));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "title"]);
    assert!(error["code"].is_u64() && error["title"].is_string());
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty());
    message
}

async fn take(board: &watch::Sender<Arc<Board>>, store: &Store, decisions: &[Decision]) {
    let before = board.borrow().ledger.clone();
    let mut after = before.clone();
    for decision in decisions {
        after.apply(NOW, decision);
    }
    let entries: Vec<_> = decisions.iter().filter_map(Decision::entry).collect();
    store.record(NOW, &before, &after, &entries).await.unwrap();
    board.send_modify(|board| Arc::make_mut(board).ledger = after);
}

async fn conduct(
    board: Arc<watch::Sender<Arc<Board>>>,
    store: Store,
    pen: Arc<tokio::sync::Mutex<()>>,
    mut asked: mpsc::Receiver<Request>,
) {
    while let Some(request) = asked.recv().await {
        let _pen = pen.lock().await;
        let shown = board.borrow().clone();
        match request {
            Request::Order { order: wanted, by, why, answer } => {
                let Board { now, seen, ledger, policy } = &*shown;
                let ordered = match order(*now, seen, ledger, policy, &wanted, &by, &why) {
                    Ok(decisions) => {
                        take(&board, &store, &decisions).await;
                        Ok(())
                    }
                    Err(refusal) => Err(refusal.0),
                };
                let _ = answer.send(ordered.map_err(OrderError::Refused));
            }
            Request::Instances { host, answer } => {
                let nobody = host == odd();
                let _ = answer.send(if nobody {
                    Err(OrderError::Refused("its cell does not answer".to_owned()))
                } else {
                    Ok(instances())
                });
            }
        }
    }
}

fn instances() -> InstancesSeen {
    let vm = |name: &str, boots_from_volume| InstanceSeen {
        name: name.into(),
        state: VmState::Active,
        task: Task::None,
        running: true,
        launched: true,
        boots_from_volume,
        wish: None,
        expendable_root: false,
        owned_by: None,
        priority: 0,
        created: Time(0),
        apart: [].into(),
    };
    let instances = BTreeMap::from([(InstanceId(0xa), vm("vm1", true)), (InstanceId(0xe), vm("vm2", false))]);
    InstancesSeen { listing: Some(Arc::new(Listing { at: NOW, instances })), ..InstancesSeen::default() }
}

fn seen() -> Observation {
    let mut seen = Observation::default();
    seen.view.nova_answered = Some(Time(NOW.0 - 1000));
    let id = IncidentId { host: dead(), outage: 1 };
    let up = ServiceSeen {
        up: true,
        forced_down: false,
        disabled: None,
        reported: Some(Time(NOW.0 - 2000)),
        reports: 2,
        reported_before: None,
    };
    let down = ServiceSeen {
        up: false,
        forced_down: true,
        disabled: Some(disabled_reason(&id).into()),
        reported: None,
        reports: 0,
        reported_before: None,
    };
    let channels = |mgmt: Option<u64>, storage: Option<u64>| {
        let channel = |network: &str, kind, ago: Option<u64>| Channel {
            network: network.into(),
            kind,
            last: ago.map(|ago| Time(NOW.0 - ago)),
        };
        vec![channel("mgmt", ChannelKind::Heartbeat, mgmt), channel("storage", ChannelKind::Tcp, storage)]
    };
    let host = |nova, channels, boot, reading| HostSeen {
        groups: Vec::new(),
        nova,
        channels,
        boot,
        power: PowerSeen { reading, system: None },
        schedulable: None,
    };
    let boot = BootSeen { id: BootId(0xb), heard: NOW, system: None };
    let on = Power::On { at: Time(NOW.0 - 1000) };
    let silent = Power::Unknown { why: "its BMC does not answer".into(), since: NOW };
    seen.hosts.insert(well(), host(NovaSeen::Listed(up), channels(Some(500), Some(500)), Some(boot), on));
    seen.hosts.insert(dead(), host(NovaSeen::Listed(down), channels(Some(60_000), None), None, silent));
    seen.hosts.insert(odd(), host(NovaSeen::NoData, Vec::new(), None, Power::Absent));
    seen
}
