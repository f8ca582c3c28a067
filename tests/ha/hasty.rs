//! tandem-ha with a limit that no administrator may set so short, because Nova may take two minutes to answer: UNKNOWN_S.

use std::time::Duration;

use anyhow::{Context, Result};
use tandem_ha::config::Config;
use tandem_ha::daemon;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    let file = std::env::args().nth(2).context("--config FILE")?;
    let mut config = Config::load(file.as_ref(), std::iter::empty())?.config;
    config.evacuation.unknown = Duration::from_secs(std::env::var("UNKNOWN_S")?.parse()?);
    let (_never, stop) = tokio::sync::watch::channel(false);
    daemon::run(config, stop).await
}
