//! The command line of tandem-ha: the daemon, the check of its configuration, and the heartbeat of a compute host.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use openstack_client::{Cloud, CloudConfig, Limits, Surroundings};
use tandem_ha::config::{Config, Loaded};
use tandem_ha::{daemon, watch::heartbeat};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "Examples:
  tandem-ha check-config                        what is wrong with /etc/tandem/tandem-ha.toml, and what to beware of
  tandem-ha                                     the daemon; `tandem status` shows what it sees
  tandem-ha heartbeat                           on each compute host: says that it lives, over each network
  TANDEM_HA__DETECTION__SILENCE_S=20 tandem-ha  a variable overrides the file

Exit codes: 0 ended as asked; 1 failed; 2 the configuration or the command line is wrong.";

/// Keeps OpenStack instances running when their compute host dies.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// The configuration
    #[arg(long, global = true, default_value = "/etc/tandem/tandem-ha.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration: every error at once, and warnings; changes nothing
    CheckConfig,
    /// Send this host's heartbeats
    Heartbeat,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = match Config::load(&arguments.config, variables()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let done = match arguments.command {
        Some(Command::CheckConfig) => check(&arguments.config, &loaded),
        Some(Command::Heartbeat) => {
            serve(&loaded, |config, stop| async move { heartbeat::run_sender(&config, stop).await })
        }
        None => serve(&loaded, |config, stop| async move { daemon::run(config, stop).await }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem-ha: {error:#}");
            if is_misconfigured(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether another start would end in the same way until somebody changes what we were told.
fn is_misconfigured(error: &anyhow::Error) -> bool {
    use heartbeat::Error;
    let sends_nothing = matches!(error.downcast_ref(), Some(Error::NowhereToSend { .. } | Error::NoKey { .. }));
    sends_nothing || error.is::<openstack_client::ConfigError>()
}

/// Those that are text; no key of ours is anything else.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// All that can be known without asking anybody: also who we are to Keystone, unless this is the file of a compute host.
fn check(file: &Path, loaded: &Loaded) -> Result<()> {
    let shown = file.display();
    let mut warnings = loaded.warnings.clone();
    if !loaded.config.is_for_a_sender() {
        warnings.extend(missing_directories(&loaded.config));
    }
    for warning in &warnings {
        println!("warning: {warning}");
    }
    let reader = if loaded.config.is_for_a_sender() {
        "tandem-ha heartbeat"
    } else {
        let cloud = cloud(&loaded.config).with_context(|| format!("{shown}: openstack.cloud"))?;
        println!("{}: {}", cloud.origin, cloud.credentials);
        "tandem-ha"
    };
    println!("{shown}: can be used by `{reader}`, {} warnings", warnings.len());
    Ok(())
}

/// They may be there only once the unit has started.
fn missing_directories(config: &Config) -> Vec<String> {
    let written = [("store.path", &config.store.path), ("control_socket", &config.control_socket)];
    let missing = written.into_iter().filter_map(|(key, path)| Some((key, path.parent()?)));
    let missing = missing.filter(|(_, directory)| !directory.as_os_str().is_empty() && !directory.is_dir());
    let told = |(key, directory): (&str, &Path)| {
        let directory = directory.display();
        format!(
            "{key}: there is no directory {directory} now; systemd makes /run/tandem and /var/lib/tandem, any other must be made"
        )
    };
    missing.map(told).collect()
}

/// The cloud as the daemon will find it.
fn cloud(config: &Config) -> Result<CloudConfig> {
    let cloud = CloudConfig::load(config.openstack.cloud.as_deref(), &Surroundings::of_this_process())?;
    Cloud::new(cloud.clone(), Limits::default())?; // reads its CAs
    Ok(cloud)
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
