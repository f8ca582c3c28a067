//! What the engine wants of others: questions go to the arbiter, each in a task of its own.

use std::sync::Arc;

use chrono::Utc;
use replication::{Incarnation, Record, Settled, Told, VolumeId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Said, Volumes, Wish};
use crate::arbiter::{Outcome, Register};
use crate::engine::{Command, Handle, Notice};

pub(super) async fn serve(
    handle: Handle,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    register: Arc<dyn Register>,
    volumes: Volumes,
    said: broadcast::Sender<Said>,
    wishes: mpsc::UnboundedSender<Wish>,
) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Ask { volume, life, question } => {
                let (handle, register) = (handle.clone(), register.clone());
                tokio::spawn(async move {
                    let told = ask(&*register, volume).await;
                    handle.tell(Command::Told { volume, life, question, told });
                });
            }
            Notice::Propose { volume, life, question, incarnation, expected, proposed } => {
                let (handle, register) = (handle.clone(), register.clone());
                tokio::spawn(async move {
                    let settled = propose(&*register, volume, incarnation, &expected, &proposed).await;
                    handle.tell(Command::Settled { volume, life, question, settled });
                });
            }
            Notice::Parted { volume, node } => {
                if let Some(notify) = volumes.find(volume).as_ref().and_then(|known| known.parted.get(&node)) {
                    notify.notify_one();
                }
            }
            Notice::Reserve { volume, life, whose, primary, was, next } => {
                let (done, stored) = oneshot::channel();
                // It fails only at the end; then nobody waits.
                let _ = wishes.send(Wish { volume, primary, was, next, done });
                let handle = handle.clone();
                tokio::spawn(async move {
                    let is_stored = stored.await.unwrap_or(false);
                    handle.tell(Command::Reserved { volume, life, whose, is_stored });
                });
            }
            Notice::Said { volume, text } => {
                // It fails only when nobody listens.
                let _ = said.send(Said { volume, at: Utc::now(), text });
            }
        }
    }
}

async fn ask(register: &dyn Register, volume: VolumeId) -> Told {
    match register.read(volume).await {
        Ok((incarnation, Some(record))) => Told::Record { incarnation, record: Box::new(record) },
        Ok((_, None)) => Told::Missing,
        Err(failure) => {
            tracing::warn!(%volume, error = %failure, "the arbiter was not reached");
            Told::Unreachable
        }
    }
}

/// Only to the store that is meant: what another one holds under this volume's name is none of its history.
async fn propose(
    register: &dyn Register,
    volume: VolumeId,
    incarnation: Option<Incarnation>,
    expected: &Record,
    proposed: &Record,
) -> Settled {
    let is_meant = register.read(volume).await.is_ok_and(|(found, _)| Some(found) == incarnation);
    if !is_meant {
        tracing::warn!(%volume, "the arbiter is away, or is another one: nothing is proposed to it");
        return Settled::Unknown;
    }
    match register.swap(volume, expected, proposed).await {
        Outcome::Done => Settled::Swapped,
        Outcome::Refused(record) => Settled::Refused(record),
        outcome @ (Outcome::Missing | Outcome::NotDone(_) | Outcome::Unknown(_)) => {
            tracing::warn!(%volume, ?outcome, "a change of the record is not settled");
            Settled::Unknown
        }
    }
}
