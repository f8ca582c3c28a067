//! The command line of Tandem: asks tandem-ha, shows what it says, and passes an operator's orders on.
//!
//! It judges nothing: it prints the daemon's own sentences, and ends with one of six exit codes (`failure.rs`).

mod address;
mod answer;
mod args;
mod ask;
mod failure;
mod follow;
mod manual;
mod order;
mod out;
mod server;
mod show;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::address::Address;
use crate::args::{Args, Command, IncidentCommand, Order};
use crate::failure::{Ending, Failure};
use crate::server::Server;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
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
        command => {
            let server = Server::at(Address::find(&args.server)?, args.server.timeout)?;
            runtime()?.block_on(talk(&server, command))
        }
    }
}

async fn talk(server: &Server, command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Status { watch: false, json, .. } => ask::status(server, json.json).await,
        Command::Status { watch: true, interval, json } => watch::status(server, interval, json.json).await,
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
        Command::Completions { .. } | Command::Man => unreachable!("answered without a server"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)
}
