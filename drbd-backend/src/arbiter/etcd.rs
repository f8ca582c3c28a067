//! etcd as the arbiter, over its JSON gateway: transactions that compare and put, and linearizable reads.
//!
//! ```text
//! PREFIX/incarnation     random, put there by whoever first finds none
//! PREFIX/fences          version and list
//! PREFIX/volumes/UUID    the record
//! ```
//!
//! The gateway, and not gRPC, because a plain HTTP client says what matters here: whether a request may have been sent. A change goes
//! to the first member that a connection comes about with, and to no other one after that. Reads go from member to member.
//!
//! etcd's cluster id is a hash of its members' addresses and its token: an etcd that was wiped and set up anew as before has the same
//! one. So the incarnation is drawn from both, the cluster id and a random id of our own inside it.
//!
//! Sources: etcd 3.4, "gRPC gateway", "API reference", "KV API guarantees".

mod gateway;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use replication::{Incarnation, Record, VolumeId};
use reqwest::{Client, StatusCode, Url};
use rustls::ClientConfig;
use uuid::Uuid;

use self::gateway::{Answer, Condition, Pair, Transaction};
use super::form::{Misform, record_from_json, record_to_json};
use super::http::{self, Limits, SettingsError};
use super::store::FenceDocument;
use super::{Change, Failure, Fence, Fences, FencesOutcome, Outcome, Register};

/// Records in one answer of the list.
const PAGE: u32 = 500;

/// Where etcd is.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// `https://HOST:PORT` of each member, asked in this order.
    pub endpoints: Vec<String>,
    /// Before every key. Two clouds on one etcd need two.
    pub prefix: String,
    /// With a certificate that etcd trusts. etcd's own users and roles are not used.
    pub tls: Option<ClientConfig>,
    /// For each member that is asked.
    pub limits: Limits,
}

/// Speaks to etcd 3.4 or later.
#[derive(Debug)]
pub struct Etcd {
    client: Client,
    endpoints: Vec<Url>,
    /// Where the next request goes first: the member after the one that last failed.
    preferred: AtomicUsize,
    prefix: String,
}

/// Whether a request may go to another member after one has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It changes nothing.
    Always,
    /// Only if nothing was sent.
    IfUnsent,
}

impl Etcd {
    pub fn new(settings: EtcdSettings) -> Result<Self, SettingsError> {
        let EtcdSettings { endpoints, prefix, tls, limits } = settings;
        let first = endpoints.first().ok_or(SettingsError::NoEndpoints)?;
        let client = http::client(first, tls, limits)?;
        let endpoints = endpoints.iter().map(|url| http::address(url)).collect::<Result<_, _>>()?;
        Ok(Self { client, endpoints, preferred: AtomicUsize::new(0), prefix: prefix.trim_end_matches('/').to_owned() })
    }

    async fn commit(&self, transaction: &Transaction, again: Again) -> Result<Answer, Failure> {
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut asked = 0;
        loop {
            let at = (first + asked) % count;
            let failure = match self.send(&self.endpoints[at], transaction).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.preferred.store((at + 1) % count, Ordering::Relaxed);
            asked += 1;
            let unsent = matches!(failure, Failure::Unreachable { .. });
            if asked == count || (again == Again::IfUnsent && !unsent) {
                return Err(failure);
            }
        }
    }

    async fn send(&self, endpoint: &Url, transaction: &Transaction) -> Result<Answer, Failure> {
        let name = endpoint.as_str().trim_end_matches('/');
        let url = endpoint.join("/v3/kv/txn").expect("a fixed path fits every address");
        let answer = http::call(self.client.post(url).json(transaction), name).await?;
        // Also an error that etcd itself reports settles nothing: "request timed out" and "leader changed" come after the proposal.
        let parsed = (answer.status == StatusCode::OK).then(|| serde_json::from_slice(&answer.body).ok()).flatten();
        parsed.ok_or_else(|| Failure::unsettled(name, &answer))
    }

    /// Reads these, and the incarnation with them. The first to find none puts one there.
    async fn told(&self, reads: &[gateway::Range]) -> Result<(Incarnation, Vec<Vec<Pair>>), Failure> {
        let incarnation = self.key("incarnation");
        let ranges = [&[gateway::Range::of(&incarnation)], reads].concat();
        let ask = Transaction::read(ranges);
        let mut answer = self.commit(&ask, Again::Always).await?;
        if answer.first().is_none() {
            let drawn = Uuid::new_v4().to_string();
            self.commit(&Transaction::put(&incarnation, Condition::Absent, &drawn), Again::IfUnsent).await?;
            answer = self.commit(&ask, Again::Always).await?;
        }
        let stored =
            answer.first().map(Pair::text).transpose().map_err(|source| self.misformed("incarnation", source))?;
        let Some(drawn) = stored.and_then(|text| Uuid::try_parse(&text).ok()) else {
            return Err(self.misformed("incarnation", Misform::Key));
        };
        let incarnation = Incarnation(drawn.as_u128() ^ u128::from(answer.cluster()) << 64);
        Ok((incarnation, answer.into_ranges().skip(1).collect()))
    }

    async fn fence_document(&self) -> Result<(Incarnation, Option<String>, FenceDocument), Failure> {
        let (incarnation, ranges) = self.told(&[gateway::Range::of(&self.key("fences"))]).await?;
        let (text, document) = self.fences_of(ranges.into_iter().flatten().next().as_ref())?;
        Ok((incarnation, text, document))
    }

    fn fences_of(&self, pair: Option<&Pair>) -> Result<(Option<String>, FenceDocument), Failure> {
        let Some(pair) = pair else { return Ok((None, FenceDocument::default())) };
        let parsed = pair.text().and_then(|text| Ok((serde_json::from_str(&text)?, text)));
        let (document, text) = parsed.map_err(|source| self.misformed("fences", source))?;
        Ok((Some(text), document))
    }

    fn record_of(&self, volume: VolumeId, pair: &Pair) -> Result<(String, Record), Failure> {
        let parsed = pair.text().and_then(|text| Ok((record_from_json(&text)?, text)));
        let (record, text) = parsed.map_err(|source| self.misformed(&format!("volumes/{volume}"), source))?;
        Ok((text, record))
    }

    fn volume_of(&self, pair: &Pair) -> Result<VolumeId, Failure> {
        let key = pair.name().map_err(|source| self.misformed("volumes", source))?;
        let id = key.strip_prefix(&self.key("volumes/")).and_then(|id| Uuid::try_parse(id).ok());
        id.map(|id| VolumeId(id.as_u128())).ok_or_else(|| self.misformed(&key, Misform::Key))
    }

    fn misformed(&self, key: &str, source: Misform) -> Failure {
        let at = self.endpoints.iter().map(Url::as_str).collect::<Vec<_>>().join(" ");
        Failure::Misformed { arbiter: at, key: key.to_owned(), source }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

#[async_trait]
impl Register for Etcd {
    async fn read(&self, volume: VolumeId) -> Result<(Incarnation, Option<Record>), Failure> {
        let (incarnation, ranges) = self.told(&[gateway::Range::of(&self.key(&format!("volumes/{volume}")))]).await?;
        let pair = ranges.into_iter().flatten().next();
        let record = pair.map(|pair| self.record_of(volume, &pair)).transpose()?;
        Ok((incarnation, record.map(|(_, record)| record)))
    }

    async fn list(&self) -> Result<(Incarnation, BTreeMap<VolumeId, Record>), Failure> {
        let mut all = BTreeMap::new();
        let (mut start, end) = (self.key("volumes/"), self.key("volumes0"));
        loop {
            let (incarnation, ranges) = self.told(&[gateway::Range::between(&start, &end, PAGE)]).await?;
            let page: Vec<Pair> = ranges.into_iter().flatten().collect();
            for pair in &page {
                let volume = self.volume_of(pair)?;
                all.insert(volume, self.record_of(volume, pair)?.1);
            }
            // Each page begins after the last one ended, so the end comes.
            match page.last().map(Pair::name).transpose().map_err(|source| self.misformed("volumes", source))? {
                Some(last) if last >= start => start = last + "\0",
                Some(_) | None => return Ok((incarnation, all)),
            }
        }
    }

    async fn change(&self, volume: VolumeId, change: &Change) -> Outcome {
        if let Some(why) = change.misfit() {
            return Outcome::NotDone(Failure::Misfit { why });
        }
        let key = self.key(&format!("volumes/{volume}"));
        let mut expected = change.expected().map(record_to_json);
        // Twice: another version of Tandem may have written the very record that is expected in other bytes.
        for _ in 0..2 {
            let condition = expected.as_deref().map_or(Condition::Absent, Condition::Is);
            let transaction = match change.proposed() {
                Some(proposed) => Transaction::put(&key, condition, &record_to_json(proposed)),
                None => Transaction::delete(&key, condition),
            };
            let answer = match self.commit(&transaction, Again::IfUnsent).await {
                Ok(answer) => answer,
                Err(failure) if failure.is_harmless() => return Outcome::NotDone(failure),
                Err(failure) => return Outcome::Unknown(failure),
            };
            if answer.succeeded() {
                return Outcome::Done;
            }
            let Some(pair) = answer.first() else { return Outcome::Missing };
            match self.record_of(volume, pair) {
                // It did not compare equal, so nothing was done.
                Err(failure) => return Outcome::NotDone(failure),
                Ok((text, record)) if Some(&record) == change.expected() => expected = Some(text),
                Ok((_, record)) => return Outcome::Refused(Box::new(record)),
            }
        }
        Outcome::NotDone(Failure::Contended { attempts: 2 })
    }

    async fn fences(&self) -> Result<Fences, Failure> {
        let (incarnation, _, FenceDocument { version, list }) = self.fence_document().await?;
        Ok(Fences { incarnation, version, list })
    }

    async fn change_fences(&self, expected_version: u64, list: &[Fence]) -> FencesOutcome {
        let (incarnation, text, there) = match self.fence_document().await {
            Ok(read) => read,
            Err(failure) => return FencesOutcome::NotDone(failure),
        };
        let refused = |there: FenceDocument| {
            FencesOutcome::Refused(Fences { incarnation, version: there.version, list: there.list })
        };
        if there.version != expected_version {
            return refused(there);
        }
        let condition = text.as_deref().map_or(Condition::Absent, Condition::Is);
        let proposed = FenceDocument { version: expected_version + 1, list: list.to_vec() };
        let proposed = serde_json::to_string(&proposed).expect("texts and numbers can be written as JSON");
        let transaction = Transaction::put(&self.key("fences"), condition, &proposed);
        match self.commit(&transaction, Again::IfUnsent).await {
            Ok(answer) if answer.succeeded() => FencesOutcome::Done,
            Ok(answer) => match self.fences_of(answer.first()) {
                Ok((_, there)) => refused(there),
                Err(failure) => FencesOutcome::NotDone(failure),
            },
            Err(failure) if failure.is_harmless() => FencesOutcome::NotDone(failure),
            Err(failure) => FencesOutcome::Unknown(failure),
        }
    }
}
