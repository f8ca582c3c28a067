//! The command line of tandem-node: the daemon, the arbiter, the check of their configuration, and certificates.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tandem_node::cert::{self, CertCommand};
use tandem_node::config::{Config, Loaded};
use tandem_node::daemon;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "Examples:
  tandem-node cert init --dir /root/tandem-ca     the private CA of all nodes, once
  tandem-node check-config                        what is wrong with /etc/tandem/tandem-node.toml, and what to beware of
  tandem-node arbiter                             on a machine that holds no replica: says who may serve a volume
  tandem-node                                     on each node: the daemon; `tandem volume list` shows what it serves
  TANDEM_NODE__REPLICATION__LEASE_S=3 tandem-node a variable overrides the file

Exit codes: 0 ended as asked; 1 failed; 2 the configuration or the command line is wrong.";

/// Replicated block store: every volume on two or three nodes at once.
#[derive(Debug, Parser)]
#[command(name = "tandem-node", version, after_help = EXAMPLES)]
struct Arguments {
    /// The configuration
    #[arg(long, global = true, default_value = "/etc/tandem/tandem-node.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration: every error at once, and warnings; changes nothing
    CheckConfig,
    /// Run the arbiter that is built in
    Arbiter,
    /// Make and look at the certificates by which nodes, tandem-ha, Cinder and administrators know each other
    #[command(subcommand)]
    Cert(CertCommand),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let command = match arguments.command {
        Some(Command::Cert(command)) => return ended(cert::run(command)),
        other => other,
    };
    let loaded = match Config::load(&arguments.config, variables()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match command {
        Some(Command::CheckConfig) => check(&loaded),
        Some(Command::Arbiter) => ended(serve(&loaded, daemon::run_arbiter)),
        Some(Command::Cert(_)) => unreachable!("it has been run"),
        None if loaded.config.is_for_the_arbiter() => {
            let file = arguments.config.display();
            eprintln!(
                "{file}: pools: there is none, and no [arbiter]: it can be used by `tandem-node arbiter` only; a node has \
                 [pools.default] with a path, and [arbiter] with a url"
            );
            ExitCode::from(2)
        }
        None => ended(serve(&loaded, daemon::run)),
    }
}

fn ended(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Those that are text; no key of ours is anything else.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// All that can be known without asking anybody.
fn check(loaded: &Loaded) -> ExitCode {
    let config = &loaded.config;
    for warning in &loaded.warnings {
        println!("warning: {warning}");
    }
    match daemon::credentials(config) {
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(2);
        }
        Ok(Some(credentials)) => println!("{}, until {}", credentials.identity(), credentials.ends()),
        Ok(None) => {}
    }
    let user = if config.is_for_the_arbiter() { "tandem-node arbiter" } else { "tandem-node" };
    println!(
        "{}: can be used by `{user}` as {}, {} warnings",
        config.file.display(),
        config.name,
        loaded.warnings.len()
    );
    ExitCode::SUCCESS
}

fn serve<F: Future<Output = Result<()>>>(
    loaded: &Loaded,
    run: impl FnOnce(Config, watch::Receiver<bool>) -> F,
) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .init();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be heard")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be heard")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to end");
            stop.send_replace(true);
        });
        run(loaded.config.clone(), stopped).await
    })
}
