//! Finds the servers: the option, the variable, the files, else the control socket.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::failure::Failure;

/// Where a daemon listens, and who said so.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) target: Target,
    /// As messages name it: "--ha", "/etc/tandem/tandem.toml", "the default".
    pub(crate) origin: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Socket(PathBuf),
    Port(Url),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Socket(path) => write!(f, "unix:{}", path.display()),
            Target::Port(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl Address {
    /// What the first of the places says that says something; never none. Any node answers for all, so there may be several.
    pub(crate) fn find(daemon: Daemon, options: &[String], file: Option<&Path>) -> Result<Vec<Self>, Failure> {
        if !options.is_empty() {
            let option = format!("--{}", daemon.key());
            return options.iter().map(|url| Self::new(url, &option)).collect();
        }
        if let Some(urls) = std::env::var_os(daemon.variable()).filter(|urls| !urls.is_empty()) {
            return Self::of_variable(daemon, &urls.to_string_lossy());
        }
        match Config::first_with(&[daemon.key()], file)? {
            Some(config) => Self::of_config(daemon, &config),
            None => Ok(vec![Self::new(daemon.socket(), "the default")?]),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(&self.target, Target::Port(url) if url.scheme() == "https")
    }

    fn new(url: &str, origin: &str) -> Result<Self, Failure> {
        match Target::parse(url.trim()) {
            Ok(target) => Ok(Self { target, origin: origin.to_owned() }),
            Err(why) => Err(Failure::Address { origin: origin.to_owned(), url: url.to_owned(), why }),
        }
    }

    fn of_variable(daemon: Daemon, urls: &str) -> Result<Vec<Self>, Failure> {
        match daemon {
            Daemon::Ha => Ok(vec![Self::new(urls, daemon.variable())?]),
            Daemon::Node => urls.split(',').map(|url| Self::new(url, daemon.variable())).collect(),
        }
    }

    fn of_config(daemon: Daemon, config: &Config) -> Result<Vec<Self>, Failure> {
        match (daemon, &config.table[daemon.key()]) {
            (Daemon::Node, toml::Value::Array(urls)) if !urls.is_empty() => {
                urls.iter().map(|url| Self::of_value(daemon, config, url)).collect()
            }
            (_, url) => Ok(vec![Self::of_value(daemon, config, url)?]),
        }
    }

    fn of_value(daemon: Daemon, config: &Config, value: &toml::Value) -> Result<Self, Failure> {
        let (key, origin) = (daemon.key(), config.file.display().to_string());
        match value {
            toml::Value::String(url) => match Target::parse(url.trim()) {
                Ok(target) => Ok(Self { target, origin }),
                Err(why) => Err(config.wrong(format!("key `{key}`: {url:?} is no address: {why}"))),
            },
            other => Err(config.wrong(format!("key `{key}`: must be text, is {}: {other}", other.type_str()))),
        }
    }
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        match url.strip_prefix("unix:") {
            Some("") => Err("the path is missing".to_owned()),
            Some(path) => Ok(Self::Socket(PathBuf::from(path))),
            None => Self::parse_port(url),
        }
    }

    fn parse_port(url: &str) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|cause| cause.to_string())?;
        match url.scheme() {
            "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
                Err("user and password have no place in it".to_owned())
            }
            "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
                Err("? and # have no place in it".to_owned())
            }
            "http" | "https" => Ok(Self::Port(url)),
            other => Err(format!("{other}: is not spoken here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for url in
            ["", "unix:", "cmp1", "cmp1:15868", "/run/tandem/ha.sock", "ftp://cmp1", "http://", "http://u:p@cmp1"]
        {
            assert!(Target::parse(url).is_err(), "{url:?}");
        }
    }
}
