//! What differs between two ledgers, as rows. Structs are taken apart field by field: the compiler tells when one is added.

use std::collections::BTreeSet;

use failover::{
    Arming, Binding, Call, CallAnswer, Entry, FenceReceipt, Host, HostRecord, Incident, InstanceId, Kind, Ledger, Move,
    MoveState, Proof, Restart, RestartState, Time, Verdict,
};
use sqlx::SqliteConnection;

use super::incident_uuid;
use super::words::{self, receipt_kind, rfc3339};

type Result = std::result::Result<(), sqlx::Error>;

pub(super) async fn difference(c: &mut SqliteConnection, at: Time, before: &Ledger, after: &Ledger) -> Result {
    let Ledger { armed, arming, lease_until: _, hosts, incidents } = after;
    if (before.armed, &before.arming) != (*armed, arming) {
        arm(c, at, *armed, arming.as_ref()).await?;
    }
    for (known, record) in hosts {
        let was = before.hosts.get(known);
        if was != Some(record) {
            host(c, at, known, was, record).await?;
        }
    }
    for (id, is) in incidents {
        let was = before.incidents.get(id);
        if was != Some(is) {
            incident(c, was, is).await?;
        }
    }
    Ok(())
}

async fn arm(c: &mut SqliteConnection, at: Time, armed: bool, arming: Option<&Arming>) -> Result {
    let sql = "INSERT INTO arming (at, armed, said_by, why) VALUES (?1, ?2, ?3, ?4)";
    let row = sqlx::query(sql).bind(rfc3339(arming.map_or(at, |it| it.at))).bind(if armed { "yes" } else { "no" });
    let said = arming.map_or(("", ""), |it| (&it.by, &it.why));
    row.bind(said.0).bind(said.1).execute(c).await?;
    Ok(())
}

async fn host(c: &mut SqliteConnection, at: Time, host: &Host, was: Option<&HostRecord>, is: &HostRecord) -> Result {
    let HostRecord { outages, boot, proven, bound } = is;
    let service = words::id(host.service);
    let (bmc, bmc_system) = match bound {
        None => (None, None),
        Some(Binding::SameSystem(system)) => (Some("same system"), Some(words::id(system.0))),
        Some(Binding::OnWhileAlive) => (Some("on while alive"), None),
    };
    let sql = "INSERT INTO hosts (service, name, outages, boot_id, bmc, bmc_system) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT DO UPDATE SET name = excluded.name, outages = excluded.outages, boot_id = excluded.boot_id,
            bmc = excluded.bmc, bmc_system = excluded.bmc_system";
    let row = sqlx::query(sql).bind(&service).bind(&*host.name).bind(*outages).bind(boot.map(|boot| words::id(boot.0)));
    row.bind(bmc).bind(bmc_system).execute(&mut *c).await?;

    let nothing = BTreeSet::new();
    let was = was.map_or(&nothing, |was| &was.proven);
    for (network, kind) in was.difference(proven) {
        let sql = "DELETE FROM channels WHERE service = ?1 AND network = ?2 AND kind = ?3";
        sqlx::query(sql).bind(&service).bind(&**network).bind(words::channel(*kind)).execute(&mut *c).await?;
    }
    for (network, kind) in proven.difference(was) {
        let sql =
            "INSERT INTO channels (service, network, kind, proven_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let row = sqlx::query(sql).bind(&service).bind(&**network).bind(words::channel(*kind));
        row.bind(rfc3339(at)).execute(&mut *c).await?;
    }
    Ok(())
}

/// What stands in the incident's own row.
fn head(incident: &Incident) -> impl PartialEq + '_ {
    let Incident { id, kind, why, opened, phase, phase_since, hold, released, outcome, closed, .. } = incident;
    (id, kind, why, (opened, closed), (phase, phase_since), hold, released, outcome)
}

async fn incident(c: &mut SqliteConnection, was: Option<&Incident>, is: &Incident) -> Result {
    let key = incident_uuid(&is.id).to_string();
    if !was.is_some_and(|was| head(was) == head(is)) {
        own_row(c, &key, is).await?;
    }
    let fresh = Incident::opened(is.id.clone(), is.kind, is.why.clone(), is.opened);
    let was = was.unwrap_or(&fresh);
    if was.gates != is.gates {
        gates(c, &key, &is.gates).await?;
    }
    if was.receipts != is.receipts {
        receipts(c, &key, &was.receipts, &is.receipts).await?;
    }
    for ((name, was), (_, is)) in calls_of(was).into_iter().zip(calls_of(is)) {
        if was != is {
            call(c, &key, name, is).await?;
        }
    }
    for gone in was.moves.keys().filter(|instance| !is.moves.contains_key(instance)) {
        forget(c, "DELETE FROM moves WHERE incident = ?1 AND instance = ?2", &key, *gone).await?;
    }
    for (instance, moving) in is.moves.iter().filter(|(instance, moving)| was.moves.get(instance) != Some(moving)) {
        a_move(c, &key, *instance, moving).await?;
    }
    for gone in was.restarts.keys().filter(|instance| !is.restarts.contains_key(instance)) {
        forget(c, "DELETE FROM restarts WHERE incident = ?1 AND instance = ?2", &key, *gone).await?;
    }
    for (instance, start) in is.restarts.iter().filter(|(instance, start)| was.restarts.get(instance) != Some(start)) {
        restart(c, &key, *instance, start).await?;
    }
    Ok(())
}

async fn own_row(c: &mut SqliteConnection, key: &str, incident: &Incident) -> Result {
    let Incident {
        id,
        kind,
        why,
        opened,
        phase,
        phase_since,
        hold,
        released,
        gates: _,
        power_off: _,
        receipts: _,
        force_down: _,
        disable: _,
        clear: _,
        enable: _,
        moves: _,
        restarts: _,
        outcome,
        closed,
    } = incident;
    let (kind, boot) = match kind {
        Kind::Outage => ("outage", None),
        Kind::Reboot(boot) => ("reboot", Some(words::id(boot.0))),
        Kind::FoundRebooted(boot) => ("found rebooted", Some(words::id(boot.0))),
    };
    let released: Vec<&str> = released.iter().map(|gate| gate.word()).collect();
    let sql = "INSERT INTO incidents (id, service, host, outage, kind, boot_id, why, opened_at, phase, phase_since,
            hold_gate, hold_why, hold_since, released, outcome, closed_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
        ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, boot_id = excluded.boot_id, why = excluded.why,
            opened_at = excluded.opened_at, phase = excluded.phase, phase_since = excluded.phase_since,
            hold_gate = excluded.hold_gate, hold_why = excluded.hold_why, hold_since = excluded.hold_since,
            released = excluded.released, outcome = excluded.outcome, closed_at = excluded.closed_at";
    sqlx::query(sql)
        .bind(key)
        .bind(words::id(id.host.service))
        .bind(&*id.host.name)
        .bind(id.outage)
        .bind(kind)
        .bind(boot)
        .bind(&**why)
        .bind(rfc3339(*opened))
        .bind(phase.word())
        .bind(rfc3339(*phase_since))
        .bind(hold.as_ref().map(|hold| hold.gate.word()))
        .bind(hold.as_ref().map(|hold| &*hold.why))
        .bind(hold.as_ref().map(|hold| rfc3339(hold.since)))
        .bind(serde_json::Value::from(released).to_string())
        .bind(outcome.map(failover::Outcome::word))
        .bind(closed.map(rfc3339))
        .execute(c)
        .await?;
    Ok(())
}

async fn gates(c: &mut SqliteConnection, key: &str, verdicts: &[Verdict]) -> Result {
    sqlx::query("DELETE FROM gates WHERE incident = ?1").bind(key).execute(&mut *c).await?;
    for (position, Verdict { gate, passed, why }) in (0_i64..).zip(verdicts) {
        let sql = "INSERT INTO gates (incident, position, gate, verdict, why) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = sqlx::query(sql).bind(key).bind(position).bind(gate.word());
        row.bind(if *passed { "passed" } else { "held" }).bind(&**why).execute(&mut *c).await?;
    }
    Ok(())
}

async fn receipts(c: &mut SqliteConnection, key: &str, was: &[FenceReceipt], is: &[FenceReceipt]) -> Result {
    for (position, receipt) in is.iter().enumerate().filter(|(position, receipt)| was.get(*position) != Some(receipt)) {
        let FenceReceipt { id: _, kind, read_at, void } = receipt;
        let (by, why, epoch) = match kind {
            Proof::PowerOff { epoch } => (None, None, Some(rfc3339(*epoch))),
            Proof::Person { by, why } => (Some(&**by), Some(&**why), None),
        };
        let sql = "INSERT INTO receipts (incident, position, kind, by, why, power_epoch, read_at, void)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
            ON CONFLICT DO UPDATE SET kind = excluded.kind, by = excluded.by, why = excluded.why,
                power_epoch = excluded.power_epoch, read_at = excluded.read_at, void = excluded.void";
        let row = sqlx::query(sql).bind(key).bind(count(position)).bind(receipt_kind(kind)).bind(by).bind(why);
        row.bind(epoch).bind(rfc3339(*read_at)).bind(void.as_deref()).execute(&mut *c).await?;
    }
    let sql = "DELETE FROM receipts WHERE incident = ?1 AND position >= ?2";
    sqlx::query(sql).bind(key).bind(count(is.len())).execute(c).await?;
    Ok(())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).expect("no list is that long")
}

fn calls_of(incident: &Incident) -> [(&'static str, Option<&Call>); 5] {
    [
        ("power off", incident.power_off.as_ref()),
        ("force down", incident.force_down.as_ref()),
        ("disable", incident.disable.as_ref()),
        ("clear forced down", incident.clear.as_ref()),
        ("enable", incident.enable.as_ref()),
    ]
}

async fn call(c: &mut SqliteConnection, key: &str, name: &str, call: Option<&Call>) -> Result {
    let Some(Call { attempts, begun, answer }) = call else {
        sqlx::query("DELETE FROM calls WHERE incident = ?1 AND call = ?2").bind(key).bind(name).execute(c).await?;
        return Ok(());
    };
    let (word, why) = match answer {
        None => (None, None),
        Some((_, CallAnswer::Done)) => (Some("done"), None),
        Some((_, CallAnswer::Failed(why))) => (Some("failed"), Some(&**why)),
    };
    let sql = "INSERT INTO calls (incident, call, attempts, begun_at, answered_at, answer, why)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT DO UPDATE SET attempts = excluded.attempts, begun_at = excluded.begun_at,
            answered_at = excluded.answered_at, answer = excluded.answer, why = excluded.why";
    let row = sqlx::query(sql).bind(key).bind(name).bind(*attempts).bind(rfc3339(*begun));
    row.bind(answer.as_ref().map(|(at, _)| rfc3339(*at))).bind(word).bind(why).execute(c).await?;
    Ok(())
}

async fn forget(c: &mut SqliteConnection, sql: &'static str, key: &str, instance: InstanceId) -> Result {
    sqlx::query(sql).bind(key).bind(words::id(instance.0)).execute(c).await?;
    Ok(())
}

async fn a_move(c: &mut SqliteConnection, key: &str, instance: InstanceId, moving: &Move) -> Result {
    let Move { name, attempt, state, known, migration, migration_status, request, to, intended, ended } = moving;
    let (word, why, since, not_before) = match state {
        MoveState::Waiting { why, since, not_before } => ("waiting", why.as_ref(), Some(*since), Some(*not_before)),
        MoveState::Intended => ("intended", None, None, None),
        MoveState::Unknown { why } => ("unknown", Some(why), None, None),
        MoveState::Accepted => ("accepted", None, None, None),
        MoveState::Moved => ("moved", None, None, None),
        MoveState::Named { why } => ("named", Some(why), None, None),
    };
    let known: Vec<String> = known.iter().map(|migration| words::id(migration.0)).collect();
    let sql = "INSERT INTO moves (incident, instance, name, attempt, state, why, since, not_before, known, migration,
            migration_status, request_id, to_service, to_host, intended_at, ended_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
        ON CONFLICT DO UPDATE SET name = excluded.name, attempt = excluded.attempt, state = excluded.state,
            why = excluded.why, since = excluded.since, not_before = excluded.not_before, known = excluded.known,
            migration = excluded.migration, migration_status = excluded.migration_status,
            request_id = excluded.request_id, to_service = excluded.to_service, to_host = excluded.to_host,
            intended_at = excluded.intended_at, ended_at = excluded.ended_at";
    sqlx::query(sql)
        .bind(key)
        .bind(words::id(instance.0))
        .bind(&**name)
        .bind(*attempt)
        .bind(word)
        .bind(why.map(|why| &**why))
        .bind(since.map(rfc3339))
        .bind(not_before.map(rfc3339))
        .bind(serde_json::Value::from(known).to_string())
        .bind(migration.map(|migration| words::id(migration.0)))
        .bind(migration_status.as_deref())
        .bind(request.as_deref())
        .bind(to.as_ref().map(|to| words::id(to.service)))
        .bind(to.as_ref().map(|to| &*to.name))
        .bind(intended.map(rfc3339))
        .bind(ended.map(rfc3339))
        .execute(c)
        .await?;
    Ok(())
}

async fn restart(c: &mut SqliteConnection, key: &str, instance: InstanceId, restart: &Restart) -> Result {
    let Restart { name, attempt, state, request, asked } = restart;
    let (word, why, not_before) = match state {
        RestartState::Waiting { not_before } => ("waiting", None, Some(*not_before)),
        RestartState::Asked => ("asked", None, None),
        RestartState::Running => ("running", None, None),
        RestartState::Named { why } => ("named", Some(&**why), None),
    };
    let sql = "INSERT INTO restarts (incident, instance, name, attempt, state, why, not_before, request_id, asked_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT DO UPDATE SET name = excluded.name, attempt = excluded.attempt, state = excluded.state,
            why = excluded.why, not_before = excluded.not_before, request_id = excluded.request_id,
            asked_at = excluded.asked_at";
    let row = sqlx::query(sql).bind(key).bind(words::id(instance.0)).bind(&**name).bind(*attempt).bind(word).bind(why);
    row.bind(not_before.map(rfc3339)).bind(request.as_deref()).bind(asked.map(rfc3339)).execute(c).await?;
    Ok(())
}

pub(super) async fn entry(c: &mut SqliteConnection, at: Time, entry: &Entry) -> Result {
    let Entry { id, kind, instance, text } = entry;
    let sql = "INSERT INTO timeline (incident, at, kind, instance, text) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = sqlx::query(sql).bind(incident_uuid(id).to_string()).bind(rfc3339(at)).bind(kind.word());
    row.bind(instance.map(|instance| words::id(instance.0))).bind(text).execute(c).await?;
    Ok(())
}
