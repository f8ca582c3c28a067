//! Chooses the microversion of a call from what the call needs and what the cloud offers.

use std::fmt;
use std::str::FromStr;

/// A version within one API, such as Nova's 2.94. Compared by its numbers: 2.100 is newer than 2.94.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion(pub u16, pub u16);

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Microversion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        numbers.map(|(major, minor)| Self(major, minor)).ok_or_else(|| format!("{text:?} is not a microversion"))
    }
}

/// What a cloud offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// The endpoint speaks an API without microversions, such as Nova's legacy /v2.
    None,
    Range {
        min: Microversion,
        max: Microversion,
    },
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Range { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

/// What a call asks for: without `needed` it makes no sense, after `known` we have not read what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) needed: Microversion,
    pub(crate) known: Microversion,
}

impl Wanted {
    pub(crate) const fn exactly(version: Microversion) -> Self {
        Self { needed: version, known: version }
    }

    pub(crate) const fn between(needed: Microversion, known: Microversion) -> Self {
        Self { needed, known }
    }

    /// The newest version that both sides know, if it is enough.
    pub(crate) fn choose(self, offered: Offered) -> Option<Microversion> {
        let Offered::Range { min, max } = offered else { return None };
        let chosen = self.known.min(max);
        (chosen >= self.needed && chosen >= min).then_some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVACUATE: Wanted = Wanted::between(Microversion(2, 68), Microversion(2, 94));

    fn nova(min: &str, max: &str) -> Offered {
        Offered::Range { min: min.parse().expect("a version"), max: max.parse().expect("a version") }
    }

    #[test]
    fn the_newest_version_known_to_both_is_chosen() {
        assert_eq!(EVACUATE.choose(nova("2.1", "2.100")), Some(Microversion(2, 94)));
        assert_eq!(EVACUATE.choose(nova("2.1", "2.79")), Some(Microversion(2, 79)));
    }

    #[test]
    fn a_cloud_too_old_too_new_or_without_microversions_has_none() {
        assert_eq!(EVACUATE.choose(nova("2.1", "2.67")), None);
        assert_eq!(EVACUATE.choose(nova("2.95", "2.110")), None);
        assert_eq!(EVACUATE.choose(Offered::None), None);
    }

    #[test]
    fn versions_are_numbers_not_text() {
        assert!(Microversion(2, 100) > Microversion(2, 94));
        assert!("2".parse::<Microversion>().is_err());
        assert!("".parse::<Microversion>().is_err());
    }
}
