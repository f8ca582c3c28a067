//! What is said of a change whose request or answer was lost, or came late.

use anyhow::{Result, ensure};
use replication::{BootId, VolumeId};
use tandem_node::arbiter::{Failure, Fence, FencesOutcome, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::proxy::{Mode, Proxy};
use super::{HASTY, LIMITS, World, created, promoted, record_of, until};

async fn both() -> Result<[World; 2]> {
    Ok([World::embedded().await?, World::etcd().await?])
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_unknown_and_was_done() -> Result<()> {
    for world in both().await? {
        let direct = world.register()?;
        let proxy = Proxy::to(world.addresses()[0].clone(), 0).await?;
        let through = world.register_at(&[proxy.address()], LIMITS)?;
        let (volume, first) = created(&*through).await?;
        proxy.set(Mode::LoseAnswers);
        let second = promoted(&first, 0, 1);
        let outcome = through.swap(volume, &first, &second).await;
        ensure!(matches!(outcome, Outcome::Unknown(Failure::NoAnswer { .. })), "{outcome:?}");
        assert_eq!(record_of(&*direct, volume).await?, second);
        proxy.set(Mode::Pass);
        let outcome = through.swap(volume, &first, &promoted(&first, 0, 2)).await;
        ensure!(matches!(&outcome, Outcome::Refused(there) if **there == second), "{outcome:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_swap_that_is_held_up_is_unknown_and_may_be_done_later() -> Result<()> {
    for world in both().await? {
        let direct = world.register()?;
        let proxy = Proxy::to(world.addresses()[0].clone(), 0).await?;
        let through = world.register_at(&[proxy.address()], HASTY)?;
        let (volume, first) = created(&*direct).await?;
        proxy.set(Mode::Hold);
        let second = promoted(&first, 0, 1);
        let outcome = through.swap(volume, &first, &second).await;
        ensure!(matches!(outcome, Outcome::Unknown(Failure::NoAnswer { .. })), "{outcome:?}");
        assert_eq!(record_of(&*direct, volume).await?, first, "reading it settles nothing");
        proxy.set(Mode::Pass);
        until("the late swap is done", async || record_of(&*direct, volume).await.is_ok_and(|now| now == second))
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_late_swap_does_nothing_once_another_one_was_done() -> Result<()> {
    for world in both().await? {
        let direct = world.register()?;
        let proxy = Proxy::to(world.addresses()[0].clone(), 0).await?;
        let through = world.register_at(&[proxy.address()], HASTY)?;
        let (volume, first) = created(&*direct).await?;
        proxy.set(Mode::Hold);
        let outcome = through.swap(volume, &first, &promoted(&first, 0, 1)).await;
        ensure!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        assert_eq!(proxy.held(), 1, "and it was sent once");
        let other = promoted(&first, 1, 2);
        ensure!(matches!(direct.swap(volume, &first, &other).await, Outcome::Done));
        proxy.set(Mode::Pass);
        until("the late swap is answered", async || proxy.answers() == 1).await?;
        assert_eq!(record_of(&*direct, volume).await?, other);
    }
    Ok(())
}

#[tokio::test]
async fn a_late_fence_does_nothing_once_the_list_has_changed() -> Result<()> {
    for world in both().await? {
        let direct = world.register()?;
        let proxy = Proxy::to(world.addresses()[0].clone(), 0).await?;
        let through = world.register_at(&[proxy.address()], HASTY)?;
        let fence = |boot| Fence {
            host: "compute-1".to_owned(),
            boot: Some(BootId(boot)),
            by: "tandem-ha a".to_owned(),
            at: chrono::DateTime::UNIX_EPOCH,
            reason: "it fell silent".to_owned(),
        };
        let before = direct.fences().await?;
        proxy.set(Mode::Hold);
        // etcd's is read first, so its change is never sent here: then nothing is late.
        match through.change_fences(before.version, &[fence(1)]).await {
            FencesOutcome::Unknown(_) | FencesOutcome::NotDone(_) => {}
            outcome => anyhow::bail!("{outcome:?}"),
        }
        direct.fence(fence(2)).await?;
        proxy.set(Mode::Pass);
        until("what was held is answered", async || proxy.answers() == proxy.held()).await?;
        assert_eq!(direct.fences().await?.list, [fence(2)]);
    }
    Ok(())
}

#[tokio::test]
async fn where_nothing_listens_a_swap_is_surely_not_done() -> Result<()> {
    for world in both().await? {
        let nobody = world.register_at(&["127.0.0.1:1".to_owned()], LIMITS)?;
        let record = super::a_record();
        let outcome = nobody.swap(VolumeId(1), &record, &promoted(&record, 0, 1)).await;
        ensure!(matches!(outcome, Outcome::NotDone(Failure::Unreachable { .. })), "{outcome:?}");
        ensure!(matches!(nobody.read(VolumeId(1)).await, Err(Failure::Unreachable { .. })));
    }
    Ok(())
}

/// Reads a request and says this.
async fn somebody_who_says(answer: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1 << 16];
            if stream.read(&mut request).await.is_ok() {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    Ok(address)
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_settles_nothing() -> Result<()> {
    for world in both().await? {
        let direct = world.register()?;
        let (volume, record) = created(&*direct).await?;
        let here = &world.addresses()[0];
        let path = match &world {
            World::Embedded(_) => format!("/v1/volumes/{volume}"),
            World::Etcd(_) => "/v3/kv/txn".to_owned(),
        };
        let plain = |status: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        };
        let nonsense = [
            String::new(),
            "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            plain("200 OK", ""),
            plain("200 OK", "{}"),
            plain("200 OK", "{\"succeeded\":true}"),
            plain("404 Not Found", "not found"),
            plain("500 Internal Server Error", "{\"failed\":\"the disk\"}"),
            plain("503 Service Unavailable", "{\"error\":\"etcdserver: leader changed\",\"code\":14}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\"done\"".to_owned(),
            format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{here}{path}\r\nContent-Length: 0\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 40 << 20, "x".repeat(17 << 20)),
        ];
        for answer in nonsense {
            let start: String = answer.chars().take(60).collect();
            let strange = world.register_at(&[somebody_who_says(answer).await?], HASTY)?;
            let outcome = strange.swap(volume, &record, &promoted(&record, 0, 1)).await;
            ensure!(matches!(outcome, Outcome::Unknown(_)), "{start:?}: {outcome:?}");
            ensure!(strange.read(volume).await.is_err(), "{start:?} was taken for a record");
        }
        assert_eq!(record_of(&*direct, volume).await?, record, "a redirect was followed");
    }
    Ok(())
}
