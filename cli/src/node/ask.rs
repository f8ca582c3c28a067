//! What only reads: one look at tandem-node, shown once or again and again.

use chrono::{DateTime, Utc};

use super::answer;
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show::{self, Paint};
use crate::watch::Sight;

/// Once. JSON is printed as it came, whether or not anybody here understands it.
pub(crate) async fn show(sight: &impl Sight, json: bool) -> Result<Ending, Failure> {
    if json {
        out::json(&sight.answer().await?)?;
    } else {
        let seen = sight.look().await?;
        out::print(&(sight.lines(&seen, Utc::now(), out::paint()).join("\n") + "\n"))?;
    }
    Ok(Ending::Done)
}

pub(crate) async fn volume(server: &Server, name: &str) -> Result<Answer, Failure> {
    server.get(&["v1", "volumes", name], &[]).await.map_err(|failure| listed(failure, "tandem volume list"))
}

pub(crate) async fn arbiter(server: &Server, json: bool) -> Result<Ending, Failure> {
    let answer = server.get(&["v1", "arbiter"], &[]).await?;
    if json {
        out::json(&answer)?;
    }
    let arbiter: answer::Arbiter = answer.read()?;
    if !json {
        out::print(&(show::nodes::arbiter(&arbiter, out::paint()).join("\n") + "\n"))?;
    }
    Ok(Ending::held_if(!arbiter.reached))
}

/// What is not found may be found in a list, where the server does not say so itself.
pub(crate) fn listed(failure: Failure, command: &str) -> Failure {
    match failure {
        Failure::Refused { call, status: 404, code, message, remedy } => {
            let remedy = remedy.or_else(|| Some(format!("`{command}` lists what there is")));
            Failure::Refused { call, status: 404, code, message, remedy }
        }
        other => other,
    }
}

/// `tandem volume list`.
#[derive(Debug)]
pub(crate) struct Volumes<'a> {
    pub(crate) server: &'a Server,
}

impl Sight for Volumes<'_> {
    type Seen = answer::Volumes;

    async fn answer(&self) -> Result<Answer, Failure> {
        self.server.get(&["v1", "volumes"], &[]).await
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, _: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::volumes::lines(seen, paint)
    }

    fn once(&self) -> String {
        "tandem volume list".to_owned()
    }
}

/// `tandem volume show`.
#[derive(Debug)]
pub(crate) struct Volume<'a> {
    pub(crate) server: &'a Server,
    pub(crate) name: &'a str,
}

impl Sight for Volume<'_> {
    type Seen = answer::Volume;

    async fn answer(&self) -> Result<Answer, Failure> {
        volume(self.server, self.name).await
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::volume::lines(seen, now, paint)
    }

    fn once(&self) -> String {
        format!("tandem volume show {}", self.name)
    }
}

/// `tandem volume attachments`.
#[derive(Debug)]
pub(crate) struct Attachments<'a> {
    pub(crate) server: &'a Server,
    pub(crate) volume: &'a str,
}

impl Sight for Attachments<'_> {
    type Seen = answer::Attachments;

    async fn answer(&self) -> Result<Answer, Failure> {
        let answer = self.server.get(&["v1", "volumes", self.volume, "attachments"], &[]).await;
        answer.map_err(|failure| listed(failure, "tandem volume list"))
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, _: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::volume::attachments(&seen.attachments, "", paint)
    }

    fn once(&self) -> String {
        format!("tandem volume attachments {}", self.volume)
    }
}

/// `tandem node list`.
#[derive(Debug)]
pub(crate) struct Nodes<'a> {
    pub(crate) server: &'a Server,
}

impl Sight for Nodes<'_> {
    type Seen = answer::Nodes;

    async fn answer(&self) -> Result<Answer, Failure> {
        self.server.get(&["v1", "nodes"], &[]).await
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::nodes::list(&seen.nodes, now, paint)
    }

    fn once(&self) -> String {
        "tandem node list".to_owned()
    }
}

/// `tandem node show`.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) server: &'a Server,
    pub(crate) name: &'a str,
}

impl Sight for Node<'_> {
    type Seen = answer::Node;

    async fn answer(&self) -> Result<Answer, Failure> {
        let answer = self.server.get(&["v1", "nodes", self.name], &[]).await;
        answer.map_err(|failure| listed(failure, "tandem node list"))
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::nodes::one(seen, now, paint)
    }

    fn once(&self) -> String {
        format!("tandem node show {}", self.name)
    }
}

/// `tandem node fences`.
#[derive(Debug)]
pub(crate) struct Fences<'a> {
    pub(crate) server: &'a Server,
}

impl Sight for Fences<'_> {
    type Seen = answer::Fences;

    async fn answer(&self) -> Result<Answer, Failure> {
        self.server.get(&["v1", "fences"], &[]).await
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, _: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::nodes::fences(seen, paint)
    }

    fn once(&self) -> String {
        "tandem node fences".to_owned()
    }
}

/// `tandem pool list`.
#[derive(Debug)]
pub(crate) struct Pools<'a> {
    pub(crate) server: &'a Server,
}

impl Sight for Pools<'_> {
    type Seen = answer::Pools;

    async fn answer(&self) -> Result<Answer, Failure> {
        self.server.get(&["v1", "pools"], &[]).await
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        self.answer().await?.read()
    }

    fn lines(&self, seen: &Self::Seen, _: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::nodes::pools(seen, paint)
    }

    fn once(&self) -> String {
        "tandem pool list".to_owned()
    }
}
