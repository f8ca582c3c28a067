//! Where people and the API meet the conductor: what it saw and decided last, and a way to give it orders.

use std::sync::Arc;

use failover::{Host, InstancesSeen, Ledger, Observation, Order, Policy, Time};
use tokio::sync::{mpsc, oneshot, watch};

/// The world as the conductor saw it last, and its record of it.
#[derive(Debug, Clone)]
pub struct Board {
    pub now: Time,
    pub seen: Observation,
    pub ledger: Ledger,
    pub policy: Policy,
}

/// What is asked of the conductor.
#[derive(Debug)]
pub enum Request {
    /// Carried out like any other decision: recorded first.
    Order { order: Order, by: Arc<str>, why: Arc<str>, answer: oneshot::Sender<Result<(), OrderError>> },
    /// A fresh look at the instances of a host, for a dry run.
    Instances { host: Host, answer: oneshot::Sender<Result<InstancesSeen, OrderError>> },
}

/// Clones all lead to the same conductor.
#[derive(Debug, Clone)]
pub struct Desk {
    board: watch::Receiver<Arc<Board>>,
    requests: mpsc::Sender<Request>,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OrderError {
    #[error("{0}")]
    Refused(String),
    #[error("it could not be recorded, so it is not done: tandem-ha's log says why")]
    NotRecorded,
    #[error("tandem-ha is shutting down")]
    Closing,
}

impl Desk {
    pub fn new(board: watch::Receiver<Arc<Board>>, requests: mpsc::Sender<Request>) -> Self {
        Self { board, requests }
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.borrow().clone()
    }

    /// Returns once the order is recorded and shows on the board.
    pub async fn order(&self, order: Order, by: Arc<str>, why: Arc<str>) -> Result<(), OrderError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Order { order, by, why, answer }, answered).await
    }

    /// Asks Nova now; takes as long as Nova does.
    pub async fn instances_of(&self, host: Host) -> Result<InstancesSeen, OrderError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Instances { host, answer }, answered).await
    }

    async fn ask<T>(
        &self,
        request: Request,
        answered: oneshot::Receiver<Result<T, OrderError>>,
    ) -> Result<T, OrderError> {
        self.requests.send(request).await.map_err(|_| OrderError::Closing)?;
        answered.await.map_err(|_| OrderError::Closing)?
    }
}
