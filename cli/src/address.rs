//! Finds the server: --ha, TANDEM_HA_URL, --config, the user's file, the host's file, else the control socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::args::ServerArgs;
use crate::failure::Failure;

const VARIABLE: &str = "TANDEM_HA_URL";
const OF_THE_USER: &str = ".config/tandem/tandem.toml";
const OF_THE_HOST: &str = "/etc/tandem/tandem.toml";
const DEFAULT: &str = "unix:/run/tandem/ha.sock";

/// Where tandem-ha listens, and who said so.
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
    /// The first of the places that says something. A file that is there but wrong is an error, not a reason to look
    /// further: the orders would go to another tandem-ha than the admin means.
    pub(crate) fn find(args: &ServerArgs) -> Result<Self, Failure> {
        if let Some(url) = &args.ha {
            return Self::new(url, "--ha");
        }
        if let Some(url) = std::env::var_os(VARIABLE).filter(|url| !url.is_empty()) {
            return Self::new(&url.to_string_lossy(), VARIABLE);
        }
        match of_files(args.config.as_deref(), &usual_files())? {
            Some(address) => Ok(address),
            None => Self::new(DEFAULT, "the default"),
        }
    }

    fn new(url: &str, origin: &str) -> Result<Self, Failure> {
        match Target::parse(url.trim()) {
            Ok(target) => Ok(Self { target, origin: origin.to_owned() }),
            Err(why) => Err(Failure::Address { origin: origin.to_owned(), url: url.to_owned(), why }),
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

fn usual_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(|home| Path::new(&home).join(OF_THE_USER)).into_iter().chain([PathBuf::from(OF_THE_HOST)]).collect()
}

/// The named file must be there; the usual ones may be absent.
fn of_files(named: Option<&Path>, usual: &[PathBuf]) -> Result<Option<Address>, Failure> {
    if let Some(file) = named {
        let text = std::fs::read_to_string(file)
            .map_err(|source| Failure::ConfigUnreadable { file: file.to_owned(), source })?;
        if let Some(address) = of_text(file, &text)? {
            return Ok(Some(address));
        }
    }
    for file in usual {
        if let Some(address) = of_usual_file(file)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

fn of_usual_file(file: &Path) -> Result<Option<Address>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => of_text(file, &text),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(Failure::ConfigUnreadable { file: file.to_owned(), source }),
    }
}

fn of_text(file: &Path, text: &str) -> Result<Option<Address>, Failure> {
    let wrong = |what: String| Failure::Config { file: file.to_owned(), what };
    let table: toml::Table = text.parse().map_err(|cause: toml::de::Error| wrong(syntax(text, &cause)))?;
    if let Some(key) = table.keys().find(|key| *key != "ha") {
        return Err(wrong(format!("unknown key `{key}`")));
    }
    match table.get("ha") {
        None => Ok(None),
        Some(toml::Value::String(url)) => match Target::parse(url.trim()) {
            Ok(target) => Ok(Some(Address { target, origin: file.display().to_string() })),
            Err(why) => Err(wrong(format!("key `ha`: {url:?} is no address: {why}"))),
        },
        Some(other) => Err(wrong(format!("key `ha`: must be text, is {}: {other}", other.type_str()))),
    }
}

/// One line instead of the parser's drawing of several.
fn syntax(text: &str, cause: &toml::de::Error) -> String {
    let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, cause.message().replace('\n', ", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_says_something_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |name: &str| folder.path().join(name);
        std::fs::write(of("empty"), "# nothing yet\n").expect("written");
        std::fs::write(of("user"), "ha = \"http://198.18.1.2:15868/\"").expect("written");
        std::fs::write(of("host"), "ha = \"unix:/run/tandem/ha.sock\"").expect("written");

        let found = |named: Option<&Path>, usual: &[PathBuf]| {
            of_files(named, usual).expect("all are well").map(|address| (address.to_string(), address.origin))
        };
        let user = ("http://198.18.1.2:15868".to_owned(), of("user").display().to_string());
        let host = ("unix:/run/tandem/ha.sock".to_owned(), of("host").display().to_string());
        assert_eq!(found(None, &[of("user"), of("host")]), Some(user.clone()));
        assert_eq!(found(None, &[of("absent"), of("host")]), Some(host.clone()));
        assert_eq!(found(Some(&of("host")), &[of("user")]), Some(host));
        assert_eq!(found(Some(&of("empty")), &[of("user")]), Some(user));
        assert_eq!(found(None, &[of("absent"), of("empty")]), None);
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for url in
            ["", "unix:", "cmp1", "cmp1:15868", "/run/tandem/ha.sock", "ftp://cmp1", "http://", "http://u:p@cmp1"]
        {
            assert!(Target::parse(url).is_err(), "{url:?}");
        }
    }
}
