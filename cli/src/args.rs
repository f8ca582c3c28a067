//! What can be typed: the one definition behind parsing, `--help`, completions and the man page.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::node::args::{ArbiterCommand, NodeCommand, PoolCommand, VolumeCommand};

const AFTER: &str = "\
Where tandem-ha is: --ha, else TANDEM_HA_URL, else `ha = \"URL\"` in the file of --config, else in
~/.config/tandem/tandem.toml, else in /etc/tandem/tandem.toml, else unix:/run/tandem/ha.sock.
The socket is open to root alone and takes every order; the TCP port only reads.

volume, node, pool, events and arbiter ask tandem-node, any of them: --node, else TANDEM_NODE_URL, else
`node = \"URL\"` in those files, else unix:/run/tandem/node.sock. There may be several: --node twice, commas in
the variable, a list in the file; the next is asked when one is not reached. https needs tls_ca, tls_cert and
tls_key in those files, or TANDEM_TLS_CA, TANDEM_TLS_CERT, TANDEM_TLS_KEY: a certificate of an admin.
Where a command has a --node of its own, which names a replica, the URL stands before the command.

Exit codes:
  0  done
  1  refused or failed (the reason is on stderr)
  2  usage or configuration
  3  server not reached
  4  not found
  5  held: a gate says no (plan), or something is held (status, orders to volumes, arbiter status)

Examples:
  tandem status --watch                     what goes on, redrawn every second
  tandem plan cmp1                          what would be done if cmp1 died now
  tandem incident show cmp1 --follow        its incident, until its instances are back
  tandem --ha http://127.0.0.1:15868 status
  tandem volume list --watch                roles, disks and resyncs of every volume
  tandem --node https://cmp2:15870 volume promote db-1 --node cmp2";

/// Sees and steers Tandem: evacuation of instances from dead compute hosts, and replicated volumes
#[derive(Debug, Parser)]
#[command(name = "tandem", version, arg_required_else_help = true, max_term_width = 110, after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which server is asked, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Address of tandem-ha: http://HOST:PORT or unix:/PATH [env: TANDEM_HA_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    pub(crate) ha: Option<String>,
    /// Address of a tandem-node, as above; may be given several times [env: TANDEM_NODE_URL]
    #[arg(long = "node", id = NODE_URL, value_name = "URL", help_heading = "Server")]
    pub(crate) node: Vec<String>,
    /// File with the addresses: `ha = "URL"`, `node = "URL"`
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    pub(crate) config: Option<PathBuf>,
    /// Seconds until the whole answer must be there
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    #[arg(help_heading = "Server")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Json {
    /// Print the server's answer unchanged
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Armed or not, whether Tandem sees, every host, every open incident
    #[command(after_help = "\
Ends with 5 while a host or an incident is held. --json prints the answer of /v2/hosts.

Channels are the ways on which a host shows life; \"4 of 4\" means life on all of them.
Bars: # moved, ! named (not moved, with a reason), > moving, . waiting. After a reboot of the host:
# running again, ! named (not started), > asked to start, . waiting.

Examples:
  tandem status
  tandem status --watch --interval 5
  tandem status --json | jq '.hosts[] | select(.standing != \"well\")'")]
    Status {
        /// Redraw until Ctrl-C
        #[arg(long, short)]
        watch: bool,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "watch")]
        interval: Duration,
        #[command(flatten)]
        json: Json,
    },

    /// Open incidents, newest first; with --all the closed ones too
    #[command(after_help = "\
Examples:
  tandem incidents
  tandem incidents --all --host cmp1
  tandem incidents --all --limit 500 --json")]
    Incidents {
        /// Closed ones too
        #[arg(long, short)]
        all: bool,
        /// Only those of this host (its name in Nova)
        #[arg(long, value_name = "HOST", value_parser = not_empty)]
        host: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        json: Json,
    },

    /// One incident
    #[command(arg_required_else_help = true)]
    Incident {
        #[command(subcommand)]
        command: IncidentCommand,
    },

    /// What would be done if HOST died now, gate by gate, without doing it
    #[command(after_help = "\
Ends with 5 when a gate says no.

Examples:
  tandem plan cmp1
  tandem plan cmp1 --json | jq .plan.gates")]
    Plan {
        /// The host's name in Nova
        #[arg(value_parser = not_empty)]
        host: String,
        #[command(flatten)]
        json: Json,
    },

    /// Lets Tandem fence and evacuate
    #[command(after_help = "\
A new database starts disarmed. Needs the control socket (root).

Examples:
  sudo tandem arm")]
    Arm {
        #[command(flatten)]
        json: Json,
    },

    /// Freezes everything: nothing is fenced or evacuated until `tandem arm`
    #[command(after_help = "\
Hosts are watched and incidents recorded all the same. Needs the control socket (root).

Examples:
  sudo tandem disarm --reason 'switch upgrade in row 3 until 04:00'")]
    Disarm {
        /// Why; it stands in the record
        #[arg(long, value_name = "TEXT", value_parser = not_empty)]
        reason: String,
        #[command(flatten)]
        json: Json,
    },

    /// Lets a held incident go on
    #[command(after_help = "\
You overrule the gate that holds the incident: `tandem incident show ID` says which and why.
Mass failure, flapping and maintenance may be overruled; for any other the reason of the hold says
what to do. On a partly recovered incident the named instances are looked at once more.
A host stands for its open incident, else for its newest; its name goes before an id that begins
like it. Needs the control socket (root).

Examples:
  sudo tandem release cmp1 --reason 'rack 3 lost its power, the others are fine'
  sudo tandem release cmp1/2 --reason 'the second outage of cmp1, as the log names it'
  sudo tandem release 3f2a --reason 'an id, as short as is unambiguous'")]
    Release {
        /// The incident: its id or the beginning of it, its host, or HOST/OUTAGE
        #[arg(value_parser = not_empty)]
        id: String,
        /// Why; it stands in the record
        #[arg(long, value_name = "TEXT", value_parser = not_empty)]
        reason: String,
        #[command(flatten)]
        json: Json,
    },

    /// States that HOST is off, where no BMC could prove it
    #[command(after_help = "\
You vouch that HOST runs nothing any more and stays off: its instances are started elsewhere
at once. If it still runs, two copies write to one disk. Pull the plug first, then say so.
Refused while the host shows life or has no open incident. Needs the control socket (root).

Examples:
  sudo tandem fence cmp1 --manual --reason 'pulled both power cords, slot 14'")]
    Fence {
        /// The host's name in Nova
        #[arg(value_parser = not_empty)]
        host: String,
        /// By hand: you have switched it off yourself
        #[arg(long, required = true)]
        manual: bool,
        /// What you did; it stands in the record as the proof
        #[arg(long, value_name = "TEXT", value_parser = not_empty)]
        reason: String,
        #[command(flatten)]
        json: Json,
    },

    /// Replicated volumes: see them, make them, steer them
    #[command(arg_required_else_help = true)]
    Volume {
        #[command(subcommand)]
        command: VolumeCommand,
    },

    /// Nodes, what is known of the dead ones, and fenced hosts
    #[command(arg_required_else_help = true)]
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },

    /// Where replicas are kept
    #[command(arg_required_else_help = true)]
    Pool {
        #[command(subcommand)]
        command: PoolCommand,
    },

    /// What the replicas say of themselves, as they say it, until Ctrl-C
    #[command(after_help = "\
From all nodes that are reached. --json prints one object a line.

Examples:
  tandem events
  tandem events --volume db-1
  tandem events --json | jq -r .text")]
    Events {
        /// Only of this volume: its name or uuid
        #[arg(long, value_name = "VOLUME", value_parser = not_empty)]
        volume: Option<String>,
        #[command(flatten)]
        json: Json,
    },

    /// The register that decides who is in sync
    #[command(arg_required_else_help = true)]
    Arbiter {
        #[command(subcommand)]
        command: ArbiterCommand,
    },

    /// Completions of a shell, to stdout
    #[command(after_help = "\
Examples:
  tandem completions bash > /etc/bash_completion.d/tandem
  tandem completions zsh  > /usr/local/share/zsh/site-functions/_tandem
  tandem completions fish > ~/.config/fish/completions/tandem.fish")]
    Completions { shell: Shell },

    /// The man page, to stdout
    #[command(after_help = "\
Examples:
  tandem man > /usr/local/share/man/man1/tandem.1
  tandem man | man -l -")]
    Man,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentCommand {
    /// The whole story: gates, receipts, moves or restarts, timeline
    #[command(after_help = "\
A host stands for its open incident, else for its newest; its name goes before an id that begins
like it. --follow goes on until the incident is settled (recovered, partly recovered or closed);
while it is held, it waits. Ctrl-C before that: exit code 130.

Examples:
  tandem incident show cmp1
  tandem incident show cmp1/2 --follow
  tandem incident show 3f2a --json | jq '.incident.moves'")]
    Show {
        /// The incident: its id or the beginning of it, its host, or HOST/OUTAGE
        #[arg(value_parser = not_empty)]
        id: String,
        /// Progress, until it is settled
        #[arg(long, short)]
        follow: bool,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "follow")]
        interval: Duration,
        #[command(flatten)]
        json: Json,
    },
}

/// What changes something. Each is one POST.
#[derive(Debug)]
pub(crate) enum Order {
    Arm,
    Disarm { reason: String },
    Release { id: String, reason: String },
    Fence { host: String, reason: String },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Of the option that names the server; where a command has no --node of its own it may stand behind the command too.
const NODE_URL: &str = "node_url";
const NODE_URL_BEHIND: &str = "node_url_behind";
/// The commands that ask tandem-node.
const OF_NODES: [&str; 5] = ["volume", "node", "pool", "events", "arbiter"];

/// The definition with all that a derived one cannot say.
pub(crate) fn definition() -> clap::Command {
    use clap::CommandFactory;
    OF_NODES.iter().fold(Args::command(), |command, name| command.mut_subcommand(*name, with_url))
}

/// Ends the process where the words are wrong, or ask for help.
pub(crate) fn parse() -> Args {
    let matches = definition().get_matches();
    let behind = urls_behind(&matches);
    match Args::from_arg_matches(&matches) {
        Ok(mut args) => {
            args.server.node.extend(behind);
            args
        }
        Err(wrong) => wrong.format(&mut definition()).exit(),
    }
}

/// --node URL on every command below that has no --node.
fn with_url(command: clap::Command) -> clap::Command {
    if command.has_subcommands() {
        return command.mut_subcommands(with_url);
    }
    if command.get_arguments().any(|argument| argument.get_long() == Some("node")) {
        return command;
    }
    let url = Arg::new(NODE_URL_BEHIND).long("node").value_name("URL").action(ArgAction::Append);
    command.arg(url.help("Address of a tandem-node [env: TANDEM_NODE_URL]").help_heading("Server"))
}

fn urls_behind(matches: &ArgMatches) -> Vec<String> {
    match matches.subcommand() {
        Some((_, deeper)) => urls_behind(deeper),
        None => {
            let urls = matches.try_get_many::<String>(NODE_URL_BEHIND).ok().flatten();
            urls.into_iter().flatten().cloned().collect()
        }
    }
}

pub(crate) fn not_empty(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("must not be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// At least 0.1: nobody reads faster, and the daemon has better things to do.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let allowed = "must be seconds, from 0.1 to 86400";
    let seconds: f64 = text.parse().map_err(|_| allowed.to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(allowed.to_owned()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::definition().debug_assert();
    }
}
