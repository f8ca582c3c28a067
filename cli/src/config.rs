//! The files that say where the servers are: the one of --config, the user's, the host's.

use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

const OF_THE_USER: &str = ".config/tandem/tandem.toml";
const OF_THE_HOST: &str = "/etc/tandem/tandem.toml";
/// All that may stand in one.
const KEYS: [&str; 5] = ["ha", "node", "tls_ca", "tls_cert", "tls_key"];

/// One file, as far as it is TOML with keys that are known.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) file: PathBuf,
    pub(crate) table: toml::Table,
}

impl Config {
    /// The first file in which one of `keys` stands. A file that is there but wrong is an error, not a reason to look further: the orders would
    /// go to another server than the admin means.
    pub(crate) fn first_with(keys: &[&str], named: Option<&Path>) -> Result<Option<Self>, Failure> {
        first_of(keys, named, &usual_files())
    }

    /// A failure that names this file.
    pub(crate) fn wrong(&self, what: String) -> Failure {
        Failure::Config { file: self.file.clone(), what }
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| Failure::ConfigUnreadable { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Config { file: file.to_owned(), what };
        let table: toml::Table = text.parse().map_err(|cause: toml::de::Error| wrong(syntax(text, &cause)))?;
        match table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            Some(key) => Err(wrong(format!("unknown key `{key}`"))),
            None => Ok(Self { file: file.to_owned(), table }),
        }
    }

    fn says(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.table.contains_key(*key))
    }
}

fn usual_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(|home| Path::new(&home).join(OF_THE_USER)).into_iter().chain([PathBuf::from(OF_THE_HOST)]).collect()
}

/// The named file must be there; the usual ones may be absent.
fn first_of(keys: &[&str], named: Option<&Path>, usual: &[PathBuf]) -> Result<Option<Config>, Failure> {
    if let Some(config) = named.map(Config::read).transpose()?.filter(|config| config.says(keys)) {
        return Ok(Some(config));
    }
    for file in usual {
        match Config::read(file) {
            Ok(config) if config.says(keys) => return Ok(Some(config)),
            Ok(_) => {}
            Err(Failure::ConfigUnreadable { source, .. }) if is_absent(&source) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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
        std::fs::write(of("host"), "ha = \"unix:/run/tandem/ha.sock\"\nnode = 'unix:/n'").expect("written");

        let found = |key: &str, named: Option<&Path>, usual: &[PathBuf]| {
            first_of(&[key], named, usual).expect("all are well").map(|config| config.file)
        };
        assert_eq!(found("ha", None, &[of("user"), of("host")]), Some(of("user")));
        assert_eq!(found("node", None, &[of("user"), of("host")]), Some(of("host")));
        assert_eq!(found("ha", None, &[of("absent"), of("host")]), Some(of("host")));
        assert_eq!(found("ha", Some(&of("host")), &[of("user")]), Some(of("host")));
        assert_eq!(found("ha", Some(&of("empty")), &[of("user")]), Some(of("user")));
        assert_eq!(found("ha", None, &[of("absent"), of("empty")]), None);
    }
}
