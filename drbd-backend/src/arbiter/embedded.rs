//! The embedded arbiter, from the side of a node: one HTTP request for each call.

use std::collections::BTreeMap;

use async_trait::async_trait;
use replication::{Incarnation, Record, VolumeId};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::http::{self, Limits, SettingsError};
use super::server::{FencesAnswer, FencesChange, ListAnswer, Said, There, VolumeAnswer};
use super::{Change, Failure, Fence, Fences, FencesOutcome, Outcome, Register};

/// Speaks to `tandem-node arbiter`.
#[derive(Debug)]
pub struct Embedded {
    client: Client,
    url: Url,
    arbiter: String,
}

/// An answer that settles the matter.
enum Told<T> {
    Done,
    Refused(T),
    Missing,
}

impl Embedded {
    /// `url`: `https://HOST:PORT`; `http://` only on loopback. `tls`: with this node's certificate.
    pub fn new(url: &str, tls: Option<ClientConfig>, limits: Limits) -> Result<Self, SettingsError> {
        let parsed = http::address(url)?;
        if parsed.scheme() == "http" && !is_loopback(&parsed) {
            return Err(SettingsError::InTheClear { url: url.to_owned() });
        }
        let client = http::client(url, tls, limits)?;
        Ok(Self { client, arbiter: url.trim_end_matches('/').to_owned(), url: parsed })
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = http::call(self.request(Method::GET, path), &self.arbiter).await?;
        match (answer.status, serde_json::from_slice(&answer.body)) {
            (StatusCode::OK, Ok(body)) => Ok(body),
            _ => match serde_json::from_slice(&answer.body) {
                Ok(Said::<()>::Declined(why)) => Err(Failure::Declined { arbiter: self.arbiter.clone(), why }),
                _ => Err(Failure::unsettled(&self.arbiter, &answer)),
            },
        }
    }

    async fn tell<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Told<T>, Failure> {
        let answer = http::call(request, &self.arbiter).await?;
        match serde_json::from_slice(&answer.body) {
            Ok(Said::Done) => Ok(Told::Done),
            Ok(Said::Refused(there)) => Ok(Told::Refused(there)),
            Ok(Said::Missing) => Ok(Told::Missing),
            Ok(Said::Declined(why)) => Err(Failure::Declined { arbiter: self.arbiter.clone(), why }),
            Ok(Said::Failed(why)) => Err(Failure::Unsettled { arbiter: self.arbiter.clone(), why }),
            Err(_) => Err(Failure::unsettled(&self.arbiter, &answer)),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = self.url.join(path).expect("our paths are made of letters, digits and ids");
        self.client.request(method, url)
    }
}

#[async_trait]
impl Register for Embedded {
    async fn read(&self, volume: VolumeId) -> Result<(Incarnation, Option<Record>), Failure> {
        let answer: VolumeAnswer = self.ask(&format!("/v1/volumes/{volume}")).await?;
        Ok((Incarnation(answer.incarnation.as_u128()), answer.record))
    }

    async fn list(&self) -> Result<(Incarnation, BTreeMap<VolumeId, Record>), Failure> {
        let mut all = BTreeMap::new();
        let mut after = Uuid::nil();
        loop {
            let page: ListAnswer = self.ask(&format!("/v1/volumes?after={after}")).await?;
            // Each page begins after the last one ended, so the end comes.
            let Some(last) = page.volumes.last().map(|listed| listed.volume).filter(|last| *last > after) else {
                return Ok((Incarnation(page.incarnation.as_u128()), all));
            };
            after = last;
            all.extend(page.volumes.into_iter().map(|listed| (VolumeId(listed.volume.as_u128()), listed.record)));
        }
    }

    async fn change(&self, volume: VolumeId, change: &Change) -> Outcome {
        if let Some(why) = change.misfit() {
            return Outcome::NotDone(Failure::Misfit { why });
        }
        let request = self.request(Method::POST, &format!("/v1/volumes/{volume}")).json(change);
        match self.tell::<There>(request).await {
            Ok(Told::Done) => Outcome::Done,
            Ok(Told::Refused(There(record))) => Outcome::Refused(Box::new(record)),
            Ok(Told::Missing) => Outcome::Missing,
            Err(failure) if failure.is_harmless() => Outcome::NotDone(failure),
            Err(failure) => Outcome::Unknown(failure),
        }
    }

    async fn fences(&self) -> Result<Fences, Failure> {
        self.ask::<FencesAnswer>("/v1/fences").await.map(Fences::from)
    }

    async fn change_fences(&self, expected_version: u64, list: &[Fence]) -> FencesOutcome {
        let change = FencesChange { version: expected_version, list: list.to_vec() };
        match self.tell::<FencesAnswer>(self.request(Method::PUT, "/v1/fences").json(&change)).await {
            Ok(Told::Done) => FencesOutcome::Done,
            Ok(Told::Refused(there)) => FencesOutcome::Refused(there.into()),
            Ok(Told::Missing) => {
                let why = "it has no list of fenced hosts".to_owned();
                FencesOutcome::Unknown(Failure::Unsettled { arbiter: self.arbiter.clone(), why })
            }
            Err(failure) if failure.is_harmless() => FencesOutcome::NotDone(failure),
            Err(failure) => FencesOutcome::Unknown(failure),
        }
    }
}

impl From<FencesAnswer> for Fences {
    fn from(answer: FencesAnswer) -> Self {
        Self { incarnation: Incarnation(answer.incarnation.as_u128()), version: answer.version, list: answer.list }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}
