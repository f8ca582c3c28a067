//! The command line of Tandem: asks tandem-ha and tandem-node, shows what they say, and passes an operator's orders on.
//!
//! It judges nothing: it prints the daemons' own sentences, and ends with one of six exit codes (`failure.rs`).

mod address;
mod answer;
mod args;
mod ask;
mod config;
mod daemon;
mod failure;
mod follow;
mod manual;
mod node;
mod order;
mod out;
mod server;
mod show;
mod tls;
mod watch;

use std::process::ExitCode;

use crate::address::Address;
use crate::args::{Args, Command, IncidentCommand, Order, ServerArgs};
use crate::daemon::Daemon;
use crate::failure::{Ending, Failure};
use crate::server::Server;

fn main() -> ExitCode {
    match run(args::parse()) {
        Ok(ending) => ending.exit_code(),
        Err(failure) => {
            out::report(&failure);
            failure.exit_code()
        }
    }
}

fn run(args: Args) -> Result<Ending, Failure> {
    match args.command {
        Command::Completions { shell } => manual::completions(shell),
        Command::Man => manual::man(),
        Command::Volume { command } => ask_node(&args.server, node::Command::Volume(command)),
        Command::Node { command } => ask_node(&args.server, node::Command::Node(command)),
        Command::Pool { command } => ask_node(&args.server, node::Command::Pool(command)),
        Command::Events { volume, json } => ask_node(&args.server, node::Command::Events { volume, json: json.json }),
        Command::Arbiter { command } => ask_node(&args.server, node::Command::Arbiter(command)),
        command => {
            let options: Vec<String> = args.server.ha.iter().cloned().collect();
            runtime()?.block_on(talk(&server(Daemon::Ha, &options, &args.server)?, command))
        }
    }
}

fn ask_node(args: &ServerArgs, command: node::Command) -> Result<Ending, Failure> {
    let server = server(Daemon::Node, &args.node, args)?;
    runtime()?.block_on(node::talk(&server, command))
}

fn server(daemon: Daemon, options: &[String], args: &ServerArgs) -> Result<Server, Failure> {
    let addresses = Address::find(daemon, options, args.config.as_deref())?;
    Server::at(daemon, addresses, args.timeout, args.config.as_deref())
}

async fn talk(server: &Server, command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Status { watch: false, json, .. } => ask::status(server, json.json).await,
        Command::Status { watch: true, interval, json } => {
            watch::watch(&watch::Status { server }, interval, json.json).await
        }
        Command::Incidents { all, host, limit, json } => ask::incidents(server, all, host, limit, json.json).await,
        Command::Incident { command: IncidentCommand::Show { id, follow: false, json, .. } } => {
            ask::incident(server, &id, json.json).await
        }
        Command::Incident { command: IncidentCommand::Show { id, follow: true, interval, json } } => {
            follow::incident(server, &id, interval, json.json).await
        }
        Command::Plan { host, json } => ask::plan(server, &host, json.json).await,
        Command::Arm { json } => order::give(server, Order::Arm, json.json).await,
        Command::Disarm { reason, json } => order::give(server, Order::Disarm { reason }, json.json).await,
        Command::Release { id, reason, json } => order::give(server, Order::Release { id, reason }, json.json).await,
        Command::Fence { host, reason, json, .. } => {
            order::give(server, Order::Fence { host, reason }, json.json).await
        }
        Command::Volume { .. }
        | Command::Node { .. }
        | Command::Pool { .. }
        | Command::Events { .. }
        | Command::Arbiter { .. } => unreachable!("asked of tandem-node"),
        Command::Completions { .. } | Command::Man => unreachable!("answered without a server"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)
}
