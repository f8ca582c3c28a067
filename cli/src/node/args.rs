//! What can be typed of volumes, nodes, pools and the arbiter.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use uuid::Uuid;

use crate::args::{Json, not_empty, seconds};

/// How an order's end is waited for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Wait {
    /// Seconds to wait for what was ordered; the order stands all the same
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Watch {
    /// Redraw until Ctrl-C
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "watch")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Every volume: roles, disks, who serves it, what goes on
    #[command(after_help = "\
ROLES and DISKS stand in the order of the replicas' places, in DRBD's words. STATE: serving, frozen (writes wait, and
why), no Primary; then what each replica copies, and what is wrong with it.

Examples:
  tandem volume list
  tandem volume list --watch
  tandem volume list --json | jq -r '.volumes[] | select(.serving | not) | .name'")]
    List {
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        json: Json,
    },

    /// One volume: its replicas, attachments, generation, and what it waits for
    #[command(after_help = "\
Examples:
  tandem volume show db-1
  tandem volume show db-1 --watch
  tandem volume show db-1 --json | jq '.replicas[] | {node, role, disk}'")]
    Show {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        json: Json,
    },

    /// Makes a volume, and waits until every replica is UpToDate
    #[command(after_help = "\
Without --on, the nodes with the most free space are taken. The same uuid again, with the same size, durability and
name, continues what was begun or finds it done; one is chosen where none is given.

Examples:
  tandem volume create db-1 --size 10G
  tandem volume create db-1 --size 10G --on cmp1,cmp2 --promote cmp1
  tandem volume create scratch --size 512M --replicas 3 --durability write --promote")]
    Create(Create),

    /// Deletes a volume and its data, on every node
    #[command(after_help = "\
Refused while a client has it open or an attachment is not revoked, and while a node with a replica is not reached.

Examples:
  tandem volume delete db-1
  tandem volume delete db-1 --yes")]
    Delete {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        /// Do not ask whether it is meant
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        json: Json,
    },

    /// Makes a replica Primary: that node serves the volume
    #[command(after_help = "\
Only a replica that is in sync is promoted. A Primary elsewhere hands over first, with nothing lost.

Examples:
  tandem volume promote db-1
  tandem volume promote db-1 --node cmp2")]
    Promote {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        /// On this node; otherwise the server chooses
        #[arg(long, value_name = "NODE", value_parser = node_name)]
        node: Option<String>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        json: Json,
    },

    /// Makes the Primary a Secondary: nobody serves the volume
    #[command(after_help = "\
Examples:
  tandem volume demote db-1")]
    Demote {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        json: Json,
    },

    /// Makes a replica Primary that cannot know whether it has every write: the last resort
    #[command(after_help = "\
For every node that was in sync it needs that node's answer that it is not Primary, a known fence of it (`tandem node
dead`), or your word with --destroyed: that replica is retired for good, and if its node lives after all, two Primaries
write. What may be lost is shown, and the volume's name asked for; --name gives it unasked.

Examples:
  tandem volume force-primary db-1 --node cmp2
  tandem volume force-primary db-1 --node cmp2 --destroyed cmp1
  tandem volume force-primary db-1 --node cmp2 --destroyed cmp1 --name db-1")]
    ForcePrimary(ForcePrimary),

    /// Throws a replica's data away and copies it anew
    #[command(after_help = "\
For a replica that is not to be believed. The volume serves on. --wait shows how far the copy is until it is done.

Examples:
  tandem volume resync db-1 --node cmp2
  tandem volume resync db-1 --node cmp2 --wait")]
    Resync {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        /// Whose replica
        #[arg(long, value_name = "NODE", value_parser = node_name)]
        node: String,
        /// Until it is in sync, with rate and time left
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        json: Json,
    },

    /// Attaches a volume to a host: prints the export's name
    #[command(after_help = "\
The host connects over NBD to the Primary's node, with this export's name; or, with --initiator, over iSCSI to the nodes of all replicas, with the CHAP user
and secret that are printed. The same id again finds it done.

Examples:
  tandem volume attach db-1 --host cmp3
  tandem volume attach db-1 --host cmp3 --initiator iqn.1993-08.org.debian:01:c3f1e0a5b2d7
  tandem volume attach db-1 --host cmp3 --id 0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf --read-only")]
    Attach {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        /// The host's name in Nova
        #[arg(long, value_name = "HOST", value_parser = not_empty)]
        host: String,
        /// The iSCSI name of its initiator: /etc/iscsi/initiatorname.iscsi has it
        #[arg(long, value_name = "IQN", value_parser = not_empty)]
        initiator: Option<String>,
        /// The attachment's uuid; otherwise one is chosen
        #[arg(long, value_name = "UUID")]
        id: Option<Uuid>,
        /// Nothing is written through it
        #[arg(long)]
        read_only: bool,
        #[command(flatten)]
        json: Json,
    },

    /// Revokes an attachment: from the answer on, nothing is read or written through it
    #[command(after_help = "\
Examples:
  tandem volume revoke db-1 0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf")]
    Revoke {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        /// The attachment's uuid: `tandem volume attachments` lists them
        id: Uuid,
        #[command(flatten)]
        json: Json,
    },

    /// Who may use a volume
    #[command(after_help = "\
Examples:
  tandem volume attachments db-1")]
    Attachments {
        /// Its name or uuid
        #[arg(value_parser = not_empty)]
        volume: String,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What it is to be called
    #[arg(value_parser = not_empty)]
    pub(crate) name: String,
    /// 10G, 512M, 1T (of 1024), or bytes
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) size: u64,
    /// On how many nodes
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) replicas: u8,
    /// On these nodes
    #[arg(long, value_name = "NODE,NODE", value_delimiter = ',', value_parser = node_name, conflicts_with = "replicas")]
    pub(crate) on: Vec<String>,
    /// In the pool of this name, on each
    #[arg(long, value_name = "POOL", value_parser = not_empty)]
    pub(crate) pool: Option<String>,
    /// What an acknowledged write outlives when all lose power at once: what was flushed, or every write
    #[arg(long, value_name = "WHAT")]
    pub(crate) durability: Option<Durability>,
    /// Its uuid; otherwise one is chosen
    #[arg(long, value_name = "UUID")]
    pub(crate) uuid: Option<Uuid>,
    /// Promote it at once, on this node if one is named
    #[arg(long, value_name = "NODE", num_args = 0..=1, default_missing_value = "", value_parser = node_or_nothing)]
    pub(crate) promote: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForcePrimary {
    /// Its name or uuid
    #[arg(value_parser = not_empty)]
    pub(crate) volume: String,
    /// Whose replica becomes Primary
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    pub(crate) node: String,
    /// Its replica is gone for good: you vouch for it. May be given several times
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    pub(crate) destroyed: Vec<String>,
    /// The volume's name once more, instead of being asked for it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    Flush,
    Write,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Every node: reached or not, its version, its boot, its volumes
    #[command(after_help = "\
Examples:
  tandem node list
  tandem node list --watch")]
    List {
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        json: Json,
    },

    /// One node
    #[command(after_help = "\
Examples:
  tandem node show cmp1")]
    Show {
        #[arg(value_parser = node_name)]
        node: String,
        #[command(flatten)]
        json: Json,
    },

    /// States that a node's boot has ended: its volumes are promoted elsewhere without waiting
    #[command(after_help = "\
You vouch that this boot of the node runs nothing any more: it is off, or has started anew. If it still runs, two
Primaries may write. tandem-ha says so by itself after a fence. It lapses when the node is heard with another boot.

Examples:
  tandem node show cmp1 --json | jq -r .boot_id
  tandem node dead cmp1 --boot-id 7d1f6c0e-90a3-4b7a-9d6e-3f3a2b1c0d9e --why 'pulled both power cords'")]
    Dead {
        #[arg(value_parser = node_name)]
        node: String,
        /// Which boot: `tandem node show` tells the one last heard
        #[arg(long, value_name = "UUID")]
        boot_id: Uuid,
        /// Why; it stands in the record
        #[arg(long, value_name = "TEXT", value_parser = not_empty)]
        why: String,
        #[command(flatten)]
        json: Json,
    },

    /// Takes back that a node is dead
    #[command(after_help = "\
Examples:
  tandem node alive cmp1")]
    Alive {
        #[arg(value_parser = node_name)]
        node: String,
        #[command(flatten)]
        json: Json,
    },

    /// Shuts a host out of every volume that is attached to it
    #[command(after_help = "\
Done when every serving Primary has recorded it; else the volumes that have not are named.

Examples:
  tandem node fence-host cmp3 --why 'hangs, and has no BMC'")]
    FenceHost {
        /// The host's name in Nova
        #[arg(value_parser = not_empty)]
        host: String,
        /// Why; it stands in the record
        #[arg(long, value_name = "TEXT", value_parser = not_empty)]
        why: String,
        #[command(flatten)]
        json: Json,
    },

    /// Lets a host in again
    #[command(after_help = "\
Examples:
  tandem node unfence-host cmp3")]
    UnfenceHost {
        /// The host's name in Nova
        #[arg(value_parser = not_empty)]
        host: String,
        #[command(flatten)]
        json: Json,
    },

    /// Hosts that are shut out
    #[command(after_help = "\
Examples:
  tandem node fences")]
    Fences {
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Every pool of every node, with its free space
    #[command(after_help = "\
Examples:
  tandem pool list
  tandem pool list --json | jq '.pools[] | select(.full)'")]
    List {
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArbiterCommand {
    /// Whether the arbiter answers, and what it holds
    #[command(after_help = "\
Ends with 5 while it is not reached: volumes serve on, but no replica is dropped, added or promoted.

Examples:
  tandem arbiter status")]
    Status {
        #[command(flatten)]
        json: Json,
    },

    /// Makes the records anew from what the replicas know, after the arbiter lost them
    #[command(after_help = "\
Volumes are held when the arbiter comes back empty or from an old copy. Refused while a replica is changing, or a
member of a volume has not reported. With --destroyed it is your word that a node will never come back: if it lives
after all, two nodes may serve a volume, and writes that only it had are lost. Ends with 5 if a record could not be
made anew: ask again.

Examples:
  tandem arbiter rebuild
  tandem arbiter rebuild --yes
  tandem arbiter rebuild --destroyed cmp3")]
    Rebuild {
        /// Do not wait for this node, whose replicas are lost for good; several times for several nodes
        #[arg(long, value_name = "NODE", value_parser = node_name)]
        destroyed: Vec<String>,
        /// Do not ask whether it is meant
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        json: Json,
    },
}

/// A node's name, and not what somebody meant for the other --node.
fn node_name(text: &str) -> Result<String, String> {
    if text.contains("://") || text.starts_with("unix:") {
        return Err(
            "must be a node's name; the server's address stands before the command: tandem --node URL ...".into()
        );
    }
    not_empty(text)
}

fn node_or_nothing(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { node_name(text) }
}

/// Of 1024, as disks of virtual machines are measured: "10G", "10GiB", "512M", "4096".
fn size(text: &str) -> Result<u64, String> {
    let allowed = || "must be a size such as 10G, 512M, 1T (of 1024) or 10737418240".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| allowed())?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").unwrap_or(&unit);
    let shift = match unit {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(allowed()),
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_of_1024() {
        for (text, bytes) in [
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("512m", 512 << 20),
            ("1T", 1 << 40),
            ("4 KiB", 4096),
            ("10737418240", 10_737_418_240),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "0", "0G", "-1", "1.5G", "10GB", "10X", "99999999999T", "1 G G", "ib"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
