//! Rows back into what they say. What nobody of ours writes is refused, with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use failover::{
    Arming, Binding, BootId, Call, CallAnswer, FenceReceipt, Hold, Host, HostRecord, Incident, IncidentId, InstanceId,
    Kind, Ledger, MigrationId, Move, MoveState, Phase, Proof, Restart, RestartState, SystemId, Time, Verdict,
};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::words::{self, rfc3339};
use super::{Recorded, Which};

type Result<T> = std::result::Result<T, sqlx::Error>;

pub(super) async fn ledger(c: &mut SqliteConnection, closed_since: Time) -> Result<Ledger> {
    let (armed, arming) = arming(c).await?;
    let hosts = hosts(c).await?;
    let sql = "SELECT * FROM incidents WHERE closed_at IS NULL OR closed_at >= ?1";
    let rows = sqlx::query(sql).bind(rfc3339(closed_since)).fetch_all(&mut *c).await?;
    let incidents = whole(c, &rows).await?;
    let incidents = incidents.into_iter().map(|incident| (incident.id.clone(), incident)).collect();
    Ok(Ledger { armed, arming, lease_until: Time::default(), hosts, incidents })
}

async fn arming(c: &mut SqliteConnection) -> Result<(bool, Option<Arming>)> {
    let newest = "SELECT * FROM arming ORDER BY number DESC LIMIT 1";
    let Some(row) = sqlx::query(newest).fetch_optional(c).await? else { return Ok((false, None)) };
    let row = Fields { table: "arming", row: &row };
    let armed = match &*row.text("armed")? {
        "yes" => true,
        "no" => false,
        _ => return row.garbled("armed"),
    };
    let by = row.text("said_by")?;
    let arming = Arming { by, why: row.text("why")?, at: row.time("at")? };
    Ok((armed, (!arming.by.is_empty()).then_some(arming)))
}

async fn hosts(c: &mut SqliteConnection) -> Result<BTreeMap<Host, HostRecord>> {
    let mut by_service = BTreeMap::new();
    for row in sqlx::query("SELECT * FROM hosts").fetch_all(&mut *c).await? {
        let row = Fields { table: "hosts", row: &row };
        let host = Host { service: row.id("service")?, name: row.text("name")? };
        let bound = match row.maybe_text("bmc")?.as_deref() {
            None => None,
            Some("same system") => Some(Binding::SameSystem(SystemId(row.id("bmc_system")?))),
            Some("on while alive") => Some(Binding::OnWhileAlive),
            Some(_) => return row.garbled("bmc"),
        };
        let boot = row.maybe_id("boot_id")?.map(BootId);
        let record = HostRecord { outages: row.number("outages")?, boot, proven: BTreeSet::new(), bound };
        by_service.insert(host.service, (host, record));
    }
    for row in sqlx::query("SELECT * FROM channels").fetch_all(c).await? {
        let row = Fields { table: "channels", row: &row };
        let (_, record) = by_service.get_mut(&row.id("service")?).ok_or_else(|| row.bad("service"))?;
        record.proven.insert((row.text("network")?, row.word("kind", words::of_channel)?));
    }
    Ok(by_service.into_values().collect())
}

pub(super) async fn incidents(
    readers: &SqlitePool,
    which: Which,
    host: Option<&str>,
    limit: u32,
) -> Result<Vec<Incident>> {
    let mut c = readers.acquire().await?;
    let sql = "SELECT * FROM incidents
        WHERE (?1 = 'all' OR (closed_at IS NULL) = (?1 = 'open')) AND (?2 IS NULL OR host = ?2)
        ORDER BY opened_at DESC, host, outage DESC LIMIT ?3";
    let which = match which {
        Which::Open => "open",
        Which::Closed => "closed",
        Which::All => "all",
    };
    let rows = sqlx::query(sql).bind(which).bind(host).bind(limit).fetch_all(&mut *c).await?;
    whole(&mut c, &rows).await
}

pub(super) async fn incident(readers: &SqlitePool, id: Uuid) -> Result<Option<Incident>> {
    let mut c = readers.acquire().await?;
    let rows = sqlx::query("SELECT * FROM incidents WHERE id = ?1").bind(id.to_string()).fetch_all(&mut *c).await?;
    Ok(whole(&mut c, &rows).await?.pop())
}

pub(super) async fn timeline(readers: &SqlitePool, id: Uuid) -> Result<Vec<Recorded>> {
    let mut c = readers.acquire().await?;
    let sql = "SELECT * FROM timeline WHERE incident = ?1 ORDER BY number";
    let rows = sqlx::query(sql).bind(id.to_string()).fetch_all(&mut *c).await?;
    rows.iter().map(|row| recorded(&Fields { table: "timeline", row })).collect()
}

fn recorded(row: &Fields<'_>) -> Result<Recorded> {
    Ok(Recorded {
        at: row.time("at")?,
        kind: row.word("kind", words::of_entry)?,
        instance: row.maybe_id("instance")?.map(InstanceId),
        text: row.row.try_get("text")?,
    })
}

/// The incidents of these rows, in their order, with what stands in other tables.
async fn whole(c: &mut SqliteConnection, rows: &[SqliteRow]) -> Result<Vec<Incident>> {
    let mut found = Found { keys: Vec::new(), incidents: Vec::new() };
    for row in rows {
        let row = Fields { table: "incidents", row };
        found.keys.push(row.row.try_get("id")?);
        found.incidents.push(head(&row)?);
    }
    let keys = serde_json::Value::from(found.keys.clone()).to_string();
    macro_rules! fill {
        ($table:literal, $take:expr) => {
            let sql =
                concat!("SELECT * FROM ", $table, " WHERE incident IN (SELECT value FROM json_each(?1)) ORDER BY 1, 2");
            for row in sqlx::query(sql).bind(&keys).fetch_all(&mut *c).await? {
                let row = Fields { table: $table, row: &row };
                let take: fn(&Fields<'_>, &mut Incident) -> Result<()> = $take;
                take(&row, found.incident(&row)?)?;
            }
        };
    }
    fill!("gates", gate);
    fill!("receipts", receipt);
    fill!("calls", call);
    fill!("moves", a_move);
    fill!("restarts", restart);
    Ok(found.incidents)
}

struct Found {
    keys: Vec<String>,
    incidents: Vec<Incident>,
}

impl Found {
    fn incident(&mut self, row: &Fields<'_>) -> Result<&mut Incident> {
        let key: &str = row.row.try_get("incident")?;
        let position = self.keys.iter().position(|known| known == key).ok_or_else(|| row.bad("incident"))?;
        Ok(&mut self.incidents[position])
    }
}

fn head(row: &Fields<'_>) -> Result<Incident> {
    let host = Host { service: row.id("service")?, name: row.text("host")? };
    let id = IncidentId { host, outage: row.number("outage")? };
    let kind = match &*row.text("kind")? {
        "outage" => Kind::Outage,
        "reboot" => Kind::Reboot(BootId(row.id("boot_id")?)),
        "found rebooted" => Kind::FoundRebooted(BootId(row.id("boot_id")?)),
        _ => return row.garbled("kind"),
    };
    let mut incident = Incident::opened(id, kind, row.text("why")?, row.time("opened_at")?);
    (incident.phase, incident.phase_since) = (row.word("phase", words::of_phase)?, row.time("phase_since")?);
    if row.maybe_text("hold_gate")?.is_some() {
        let gate = row.word("hold_gate", words::of_gate)?;
        incident.hold = Some(Hold { gate, why: row.text("hold_why")?, since: row.time("hold_since")? });
    }
    let released: Option<BTreeSet<_>> = row.list("released")?.iter().map(|word| words::of_gate(word)).collect();
    incident.released = released.ok_or_else(|| row.bad("released"))?;
    if row.maybe_text("outcome")?.is_some() {
        incident.outcome = Some(row.word("outcome", words::of_outcome)?);
    }
    incident.closed = row.maybe_time("closed_at")?;
    if (incident.phase == Phase::Closed) != incident.closed.is_some() {
        return row.garbled("closed_at");
    }
    Ok(incident)
}

fn gate(row: &Fields<'_>, incident: &mut Incident) -> Result<()> {
    let passed = match &*row.text("verdict")? {
        "passed" => true,
        "held" => false,
        _ => return row.garbled("verdict"),
    };
    incident.gates.push(Verdict { gate: row.word("gate", words::of_gate)?, passed, why: row.text("why")? });
    Ok(())
}

fn receipt(row: &Fields<'_>, incident: &mut Incident) -> Result<()> {
    let kind = match &*row.text("kind")? {
        "redfish" => Proof::PowerOff { epoch: row.time("power_epoch")? },
        "manual" => Proof::Person { by: row.text("by")?, why: row.text("why")? },
        _ => return row.garbled("kind"),
    };
    let (read_at, void) = (row.time("read_at")?, row.maybe_text("void")?);
    incident.receipts.push(FenceReceipt { id: incident.id.clone(), kind, read_at, void });
    Ok(())
}

fn call(row: &Fields<'_>, incident: &mut Incident) -> Result<()> {
    let answer = match row.maybe_text("answer")?.as_deref() {
        None => None,
        Some("done") => Some((row.time("answered_at")?, CallAnswer::Done)),
        Some("failed") => Some((row.time("answered_at")?, CallAnswer::Failed(row.text("why")?))),
        Some(_) => return row.garbled("answer"),
    };
    let place = match &*row.text("call")? {
        "power off" => &mut incident.power_off,
        "force down" => &mut incident.force_down,
        "disable" => &mut incident.disable,
        "clear forced down" => &mut incident.clear,
        "enable" => &mut incident.enable,
        _ => return row.garbled("call"),
    };
    *place = Some(Call { attempts: row.number("attempts")?, begun: row.time("begun_at")?, answer });
    Ok(())
}

fn a_move(row: &Fields<'_>, incident: &mut Incident) -> Result<()> {
    let state = match &*row.text("state")? {
        "waiting" => {
            let (since, not_before) = (row.time("since")?, row.time("not_before")?);
            MoveState::Waiting { why: row.maybe_text("why")?, since, not_before }
        }
        "intended" => MoveState::Intended,
        "unknown" => MoveState::Unknown { why: row.text("why")? },
        "accepted" => MoveState::Accepted,
        "moved" => MoveState::Moved,
        "named" => MoveState::Named { why: row.text("why")? },
        _ => return row.garbled("state"),
    };
    let known: Option<BTreeSet<_>> = row.list("known")?.iter().map(|id| words::of_id(id).map(MigrationId)).collect();
    let to = match row.maybe_text("to_host")? {
        Some(name) => Some(Host { service: row.id("to_service")?, name }),
        None => None,
    };
    let moving = Move {
        name: row.text("name")?,
        attempt: row.number("attempt")?,
        state,
        known: known.ok_or_else(|| row.bad("known"))?,
        migration: row.maybe_id("migration")?.map(MigrationId),
        migration_status: row.maybe_text("migration_status")?,
        request: row.maybe_text("request_id")?,
        to,
        intended: row.maybe_time("intended_at")?,
        ended: row.maybe_time("ended_at")?,
    };
    incident.moves.insert(InstanceId(row.id("instance")?), moving);
    Ok(())
}

fn restart(row: &Fields<'_>, incident: &mut Incident) -> Result<()> {
    let state = match &*row.text("state")? {
        "waiting" => RestartState::Waiting { not_before: row.time("not_before")? },
        "asked" => RestartState::Asked,
        "running" => RestartState::Running,
        "named" => RestartState::Named { why: row.text("why")? },
        _ => return row.garbled("state"),
    };
    let (request, asked) = (row.maybe_text("request_id")?, row.maybe_time("asked_at")?);
    let restart = Restart { name: row.text("name")?, attempt: row.number("attempt")?, state, request, asked };
    incident.restarts.insert(InstanceId(row.id("instance")?), restart);
    Ok(())
}

/// One row, whose columns are read as what they should be.
struct Fields<'r> {
    table: &'static str,
    row: &'r SqliteRow,
}

impl Fields<'_> {
    fn text(&self, column: &str) -> Result<Arc<str>> {
        self.maybe_text(column)?.ok_or_else(|| self.bad(column))
    }

    fn maybe_text(&self, column: &str) -> Result<Option<Arc<str>>> {
        Ok(self.row.try_get::<Option<&str>, _>(column)?.map(Into::into))
    }

    fn number(&self, column: &str) -> Result<u32> {
        let number: i64 = self.row.try_get(column)?;
        u32::try_from(number).map_err(|_| garbled(&self.place(column), &number.to_string()))
    }

    fn word<T>(&self, column: &str, of: fn(&str) -> Option<T>) -> Result<T> {
        of(&self.text(column)?).ok_or_else(|| self.bad(column))
    }

    fn maybe_word<T>(&self, column: &str, of: fn(&str) -> Option<T>) -> Result<Option<T>> {
        self.maybe_text(column)?.map(|text| of(&text).ok_or_else(|| self.bad(column))).transpose()
    }

    fn id(&self, column: &str) -> Result<u128> {
        self.word(column, words::of_id)
    }

    fn maybe_id(&self, column: &str) -> Result<Option<u128>> {
        self.maybe_word(column, words::of_id)
    }

    fn time(&self, column: &str) -> Result<Time> {
        self.word(column, words::of_rfc3339)
    }

    fn maybe_time(&self, column: &str) -> Result<Option<Time>> {
        self.maybe_word(column, words::of_rfc3339)
    }

    fn list(&self, column: &str) -> Result<Vec<String>> {
        self.word(column, |text| serde_json::from_str(text).ok())
    }

    fn place(&self, column: &str) -> String {
        format!("{}.{column}", self.table)
    }

    fn bad(&self, column: &str) -> sqlx::Error {
        let value = self.row.try_get::<Option<&str>, _>(column).ok().flatten();
        garbled(&self.place(column), value.unwrap_or("nothing"))
    }

    fn garbled<T>(&self, column: &str) -> Result<T> {
        Err(self.bad(column))
    }
}

fn garbled(place: &str, value: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: place.to_owned(), source: format!("{value:?}").into() }
}
