//! `tandem-node`: see `tandem-node --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tandem_node::cert::{self, CertCommand};

#[derive(Debug, Parser)]
#[command(name = "tandem-node", version, about = "Replicated block store: every volume on two or three nodes at once")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make and look at the certificates by which nodes, tandem-ha, Cinder and administrators know each other
    #[command(subcommand)]
    Cert(CertCommand),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Cert(command) => cert::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
