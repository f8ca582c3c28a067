//! What is allowed, and what an administrator should know before the first host dies.

use std::collections::BTreeSet;

use super::{Config, Host, Method, RootDisk};

/// A silent host is only taken for dead when so many independent networks are silent.
const LEAST_NETWORKS: usize = 2;

pub(super) fn of(config: &Config) -> Vec<String> {
    if config.is_for_a_sender() {
        return Vec::new();
    }
    let mut told = Vec::new();
    told.extend(api(config));
    told.extend(evidence(config));
    told.extend(fencing(config));
    told.extend(boards(config));
    told.extend(root_disks(config));
    told.push(
        "nova.conf of every compute host: resume_guests_state_on_host_boot must be false, as it is by default: a host that is switched on \
         again would otherwise start guests that run elsewhere by then; tandem-ha cannot see it"
            .to_owned(),
    );
    told
}

fn api(config: &Config) -> Option<String> {
    let listen = config.api.listen;
    (!listen.ip().is_loopback()).then(|| {
        format!("api.listen = \"{listen}\": everybody who reaches this address may read hosts and incidents; nobody is asked who he is")
    })
}

/// What can be seen of a host when it dies. Of one that nobody ever hears the BMC proves nothing: it is bound to the host that is heard while
/// it says On.
fn evidence(config: &Config) -> Vec<String> {
    let mut told = Vec::new();
    if config.detection.nova_alone {
        told.push(
            "detection.nova_alone = true: a host that only Nova believes down is taken for dead, also if nothing but its nova-compute or the \
             message queue failed. The BMC of such a host is never bound to it, since nobody hears the host while the BMC says On: its fence is a \
             person's word"
                .to_owned(),
        );
    }
    let watched_on = |least: usize| move |host: &Host| networks(config, host).len() >= least;
    let unwatched = names(config, |host| !watched_on(1)(host));
    if !unwatched.is_empty() {
        told.push(format!(
            "{}: no heartbeats are listened for and nothing is probed, so nothing ever moves by itself when such a host dies: a BMC is bound only \
             to a host that is heard while the BMC says On, and until then its word proves nothing. Give it heartbeats or probes, on two networks",
            unwatched.join(", ")
        ));
    }
    let beats_only = names(config, |host| watched_on(1)(host) && host.probes.is_empty());
    if !beats_only.is_empty() {
        told.push(format!(
            "{}: nothing but heartbeats is listened for. One process sends them all, so their silence is one path, on however many networks: \
             such a host is taken for dead only once Nova says down, too, or its BMC Off. Give it probes",
            beats_only.join(", ")
        ));
    }
    let few = names(config, |host| watched_on(1)(host) && !watched_on(LEAST_NETWORKS)(host));
    if !few.is_empty() {
        told.push(format!(
            "{}: fewer than two independent networks are watched, so silence alone will never confirm that such a host is dead: Nova must say \
             down, too, or its BMC Off. Give it heartbeats or probes on two networks",
            few.join(", ")
        ));
    }
    if few.is_empty() && unwatched.is_empty() && !watched_on(LEAST_NETWORKS)(&Host::default()) {
        told.push(
            "hosts without a table [hosts.NAME]: fewer than two networks have heartbeats, so silence alone will never confirm that such a host \
             is dead"
                .to_owned(),
        );
    }
    told
}

/// The networks on which a host is watched. Every host sends its heartbeats on all of them.
fn networks<'a>(config: &'a Config, host: &'a Host) -> BTreeSet<&'a str> {
    let heard = config.heartbeat.networks.iter().filter(|network| network.listen.is_some());
    let probed = host.probes.iter().map(|probe| probe.network.as_str());
    heard.map(|network| network.name.as_str()).chain(probed).collect()
}

fn fencing(config: &Config) -> Option<String> {
    let by_redfish = config.fencing.methods.contains(&Method::Redfish);
    let by_hand = names(config, |host| !by_redfish || host.redfish.is_none());
    let left = if config.fencing.methods.contains(&Method::Manual) {
        "no fencing but an operator's word (`tandem fence HOST --manual`)"
    } else {
        "no fencing at all, since \"manual\" is not in fencing.methods either"
    };
    (!by_hand.is_empty()).then(|| {
        format!(
            "{}: {left}, so nothing moves by itself when such a host dies; give it a BMC (hosts.NAME.redfish, and \"redfish\" in \
             fencing.methods)",
            by_hand.join(", ")
        )
    })
}

fn boards(config: &Config) -> Vec<String> {
    let plain = |host: &Host| host.redfish.as_ref().is_some_and(|redfish| redfish.address.scheme() == "http");
    let trusting = |host: &Host| {
        host.redfish.as_ref().is_some_and(|redfish| redfish.address.scheme() == "https" && !redfish.verify)
    };
    let (plain, trusting) = (names(config, plain), names(config, trusting));
    let mut told = Vec::new();
    if !plain.is_empty() {
        told.push(format!(
            "{}: the BMC is asked over plain http, so whoever listens on that network learns its password; use https",
            plain.join(", ")
        ));
    }
    if !trusting.is_empty() {
        told.push(format!(
            "{}: verify = false, so anything may pass for the BMC and say that the host is off; give its CA in ca_file",
            trusting.join(", ")
        ));
    }
    told
}

fn root_disks(config: &Config) -> Vec<String> {
    const LEFT: &str = "image-backed instances there are named and left where they are, because their disks would be built anew, empty";
    let mut told = Vec::new();
    if config.segments.is_empty() {
        told.push(format!("no [segments.NAME]: every root disk counts as local: {LEFT}. Only instances with a volume as root disk move"));
        return told;
    }
    for (name, segment) in config.segments.iter().filter(|(_, segment)| segment.root_disk == RootDisk::Local) {
        let hosts: Vec<String> = segment.hosts.iter().map(ToString::to_string).collect();
        told.push(format!("segments.{name} ({}): root_disk = \"local\": {LEFT}", hosts.join(", ")));
    }
    let alone: Vec<&str> =
        config.hosts.keys().map(String::as_str).filter(|host| config.segment_of(host).is_none()).collect();
    if !alone.is_empty() {
        told.push(format!("{}: no segment covers them, so their root disks count as local: {LEFT}", alone.join(", ")));
    }
    told
}

fn names(config: &Config, which: impl Fn(&Host) -> bool) -> Vec<&str> {
    config.hosts.iter().filter(|(_, host)| which(host)).map(|(name, _)| name.as_str()).collect()
}
