//! Asks ports of a host whether anybody answers, by opening a TCP connection and closing it again.
//!
//! An open port is life. A refusal is the word of a living kernel, too, unless it comes from something in between; a port that was ever
//! refused while its host was well is one whose refusals say nothing ([`Port`]).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Open,
    Refused,
    /// Nothing came back that the host itself has said; also when we could not ask.
    Silent(Arc<str>),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Refused => f.write_str("refused"),
            Self::Silent(why) => write!(f, "silent: {why}"),
        }
    }
}

/// What one probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    pub host: String,
    pub network: String,
    pub address: SocketAddr,
    pub reach: Reach,
    /// Whether that is a sign of life.
    pub alive: bool,
    /// When it was asked: what answers was alive then or later.
    pub at: Instant,
}

/// One look, which takes at most `limit`.
pub async fn probe(address: SocketAddr, limit: Duration) -> Reach {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Reach::Open,
        Ok(Err(why)) if why.kind() == io::ErrorKind::ConnectionRefused => Reach::Refused,
        Ok(Err(why)) => Reach::Silent(format!("{address}: {why}").into()),
        Err(_) => Reach::Silent(format!("{address}: no answer within {} s", limit.as_secs_f64()).into()),
    }
}

/// Probes one address again and again, until nobody takes the answers any more. A look takes at most the interval.
pub async fn watch(host: String, probe_of: crate::config::Probe, every: Duration, seen: mpsc::Sender<Probed>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut port = Port::default();
    let mut answered = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = seen.closed() => return,
        }
        let at = Instant::now();
        let reach = probe(probe_of.address, every).await;
        // a refusal right after an answer is that of a host that is well; one after silence may be all that a living kernel has to say
        let alive = port.shows_life(&reach, answered);
        answered = !matches!(reach, Reach::Silent(_));
        let (host, network, address) = (host.clone(), probe_of.network.clone(), probe_of.address);
        if seen.send(Probed { host, network, address, reach, alive, at }).await.is_err() {
            return;
        }
    }
}

/// What is known of one port, to judge whether a look at it is a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Port {
    closed_while_well: bool,
}

impl Port {
    /// Whether the host lives, as far as this look tells; no answer is no evidence of death. `well` is whether this
    /// very port answered when it was last asked.
    pub fn shows_life(&mut self, reach: &Reach, well: bool) -> bool {
        match reach {
            Reach::Open => true,
            Reach::Refused => {
                self.closed_while_well |= well;
                !self.closed_while_well
            }
            Reach::Silent(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_life_unless_the_port_was_closed_while_the_host_was_well() {
        let mut port = Port::default();
        assert!(port.shows_life(&Reach::Open, true));
        assert!(port.shows_life(&Reach::Refused, false), "the service went with something else, its kernel lives");
        assert!(!port.shows_life(&Reach::Silent("x".into()), true));
        assert!(!port.shows_life(&Reach::Refused, true), "this port says nothing by refusing");
        assert!(!port.shows_life(&Reach::Refused, false), "and will not any more");
        assert!(port.shows_life(&Reach::Open, false));
    }

    #[tokio::test]
    async fn ports_are_open_refused_or_silent() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = open.local_addr().expect("it has one");
        assert_eq!(probe(address, Duration::from_secs(5)).await, Reach::Open);
        drop(open);
        assert_eq!(probe(address, Duration::from_secs(5)).await, Reach::Refused);
        // a multicast group has no TCP: the kernel says so at once
        let Reach::Silent(why) = probe("224.0.0.1:9".parse().expect("an address"), Duration::from_secs(5)).await else {
            panic!("nobody is there")
        };
        assert!(why.starts_with("224.0.0.1:9: "), "{why}");
    }

    #[tokio::test]
    async fn a_watcher_reports_until_nobody_listens() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = open.local_addr().expect("it has one");
        let (seen, mut looks) = mpsc::channel(1);
        let of = crate::config::Probe { network: "mgmt".to_owned(), address };
        let watcher = tokio::spawn(watch("cmp1".to_owned(), of, Duration::from_millis(5), seen));
        let first = looks.recv().await.expect("a look");
        assert_eq!((first.host.as_str(), first.network.as_str(), &first.reach), ("cmp1", "mgmt", &Reach::Open));
        assert!(first.alive);
        drop(open);
        let refused = loop {
            let look = looks.recv().await.expect("a look");
            if look.reach == Reach::Refused {
                break look;
            }
        };
        assert!(!refused.alive, "its service ended, and it was well a moment ago");
        drop(looks);
        watcher.await.expect("it ends");
    }
}
