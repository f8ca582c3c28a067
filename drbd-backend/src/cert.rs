//! `tandem-node cert`: makes the private CA and the certificates of nodes, tandem-ha, Cinder and admins, shows them, and tells which end soon.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use crate::identity::facts::Holder;
use crate::identity::{Address, Authority, Facts, Identity, Kind, Name, Request, rfc3339};

/// Certificates: who may speak to whom.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples, on the machine that keeps the CA:
  tandem-node cert init
  tandem-node cert issue node compute-1 --address 198.18.2.1 --out /root/for/compute-1
  tandem-node cert issue ha controller --out /root/for/controller
  tandem-node cert check --within 60 || mail -s 'certificates end' root")]
pub enum CertCommand {
    Init(Init),
    Issue(Issue),
    Show(Show),
    Check(Check),
}

/// Make a CA. Its key stays in its folder, on this machine; whoever reads it can pass for anybody.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tandem-node cert init
  tandem-node cert init --dir /root/tandem-ca --days 7300")]
pub struct Init {
    #[command(flatten)]
    dir: Dir,
    /// How long it is good; nothing that it signs is good for longer
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    #[command(flatten)]
    json: Json,
}

/// Issue a certificate: NAME.crt and NAME.key, and ca.crt beside them. These three files go to the host.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tandem-node cert issue node compute-1
  tandem-node cert issue node compute-1 --address 198.18.2.1 --address compute-1.example.org
  tandem-node cert issue cinder volume-1 --out /root/for/volume-1
  tandem-node cert issue node compute-1 --force      # before it ends; then reload tandem-node")]
pub struct Issue {
    /// Whom it is for
    kind: Kind,
    /// Of a node: its host's name in Nova. Of others: any name in the same letters
    name: Name,
    #[command(flatten)]
    dir: Dir,
    /// An IP address or DNS name at which it is reached, for clients that insist on one (Python, qemu, curl); may be repeated
    #[arg(long = "address", value_name = "IP|DNS")]
    addresses: Vec<Address>,
    /// How long it is good
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Where to put the files, instead of the CA's folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the certificate and the key that this identity has there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: Json,
}

/// Show who holds a certificate, until when, and who issued it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tandem-node cert show /etc/tandem/compute-1.crt
  tandem-node cert show --json /etc/tandem/ca.crt")]
pub struct Show {
    /// A file of one or more certificates in PEM
    file: PathBuf,
    #[command(flatten)]
    json: Json,
}

/// Tell which certificates end soon; the exit code is 1 if any does, has ended, or has not begun.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tandem-node cert check
  tandem-node cert check --within 60 /etc/tandem/ca.crt /etc/tandem/compute-1.crt")]
pub struct Check {
    /// Certificates, or folders with *.crt [default: the folder of the CA]
    files: Vec<PathBuf>,
    #[command(flatten)]
    dir: Dir,
    /// How many days are soon
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=36500))]
    within: u32,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
struct Dir {
    /// The folder of the CA
    #[arg(long, value_name = "DIR", default_value = "/etc/tandem/ca")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries out the command and prints to stdout.
///
/// # Errors
/// What was refused or failed, with its remedy; for `check` also that some certificate needs to be issued anew.
pub fn run(command: CertCommand) -> Result<()> {
    run_at(command, Utc::now(), &mut std::io::stdout().lock())
}

/// As [`run`], at the moment `now`, printing to `out`.
pub fn run_at(command: CertCommand, now: DateTime<Utc>, out: &mut dyn Write) -> Result<()> {
    match command {
        CertCommand::Init(init) => make_ca(&init, now, out),
        CertCommand::Issue(issue) => issue_one(issue, now, out),
        CertCommand::Show(show) => show_file(&show, out),
        CertCommand::Check(check) => check_all(&check, now, out),
    }
}

fn make_ca(asked: &Init, now: DateTime<Utc>, out: &mut dyn Write) -> Result<()> {
    #[derive(Serialize)]
    struct Made<'a> {
        ca: &'a Path,
        key: &'a Path,
        ends: String,
    }
    let (ca, key) = Authority::create(&asked.dir.dir, asked.days, now)?;
    let ends = Authority::open(&asked.dir.dir)?.ends();
    if asked.json.json {
        return print(out, &Made { ca: &ca, key: &key, ends: rfc3339(ends) });
    }
    writeln!(out, "CA until {}: {}, for every host", day(ends), ca.display())?;
    writeln!(out, "its key: {}; it stays here, for whoever reads it can pass for anybody", key.display())?;
    Ok(())
}

fn issue_one(asked: Issue, now: DateTime<Utc>, out: &mut dyn Write) -> Result<()> {
    #[derive(Serialize)]
    struct Made<'a> {
        identity: String,
        ends: String,
        cert: &'a Path,
        key: &'a Path,
        ca: &'a Path,
    }
    let identity = Identity::new(asked.kind, asked.name);
    let request = Request::for_days(identity, asked.addresses, asked.days, now);
    let folder = asked.out.as_ref().unwrap_or(&asked.dir.dir);
    let made = Authority::open(&asked.dir.dir)?.write(&request, folder, asked.force)?;
    let identity = request.identity.to_string();
    if asked.json.json {
        let ends = rfc3339(request.ends);
        return print(out, &Made { identity, ends, cert: &made.cert, key: &made.key, ca: &made.ca });
    }
    writeln!(out, "{identity} until {}", day(request.ends))?;
    for file in [&made.cert, &made.key, &made.ca] {
        writeln!(out, "  {}", file.display())?;
    }
    Ok(())
}

/// A certificate as `show` and `check` print it in JSON. (`check` adds its judgement.)
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    /// Absent in a CA's certificate, and in one that Tandem would not talk to.
    identity: Option<String>,
    /// The distinguished name of a CA, or of a stranger.
    subject: Option<String>,
    is_ca: bool,
    issuer: String,
    begins: String,
    ends: String,
    addresses: Vec<String>,
    serial: String,
    sha256: String,
}

impl Shown {
    fn new(file: &Path, facts: &Facts) -> Self {
        let (identity, subject, is_ca) = match &facts.holder {
            Holder::Party(identity) => (Some(identity.to_string()), None, false),
            Holder::Authority(subject) => (None, Some(subject.clone()), true),
            Holder::Stranger { subject, .. } => (None, Some(subject.clone()), false),
        };
        Self {
            file: file.into(),
            identity,
            subject,
            is_ca,
            issuer: facts.issuer.clone(),
            begins: rfc3339(facts.begins),
            ends: rfc3339(facts.ends),
            addresses: facts.addresses.clone(),
            serial: facts.serial.clone(),
            sha256: facts.sha256.clone(),
        }
    }
}

fn show_file(asked: &Show, out: &mut dyn Write) -> Result<()> {
    let all = read(&asked.file)?;
    if asked.json.json {
        return print(out, &all.iter().map(|facts| Shown::new(&asked.file, facts)).collect::<Vec<_>>());
    }
    for facts in &all {
        writeln!(out, "{}", who(facts))?;
        if let Holder::Stranger { why, .. } = &facts.holder {
            writeln!(out, "  useless  here: {why}")?;
        }
        writeln!(out, "  begins   {}", second(facts.begins))?;
        writeln!(out, "  ends     {}", second(facts.ends))?;
        writeln!(out, "  issuer   {}", facts.issuer)?;
        if !facts.addresses.is_empty() {
            writeln!(out, "  address  {}", facts.addresses.join(", "))?;
        }
        writeln!(out, "  serial   {}", facts.serial)?;
        writeln!(out, "  sha256   {}", facts.sha256)?;
    }
    Ok(())
}

/// How a certificate stands on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    EndsSoon,
    Ended,
    NotBegun,
}

fn state(facts: &Facts, within: u32, now: DateTime<Utc>) -> State {
    if now >= facts.ends {
        State::Ended
    } else if now < facts.begins {
        State::NotBegun
    } else if facts.ends - now <= chrono::TimeDelta::days(within.into()) {
        State::EndsSoon
    } else {
        State::Good
    }
}

fn check_all(asked: &Check, now: DateTime<Utc>, out: &mut dyn Write) -> Result<()> {
    #[derive(Serialize)]
    struct Checked {
        #[serde(flatten)]
        shown: Shown,
        state: State,
        days_left: i64,
        renew: Option<String>,
    }
    let mut checked = Vec::new();
    let (mut all, mut bad) = (0, 0);
    for file in files_of(asked)? {
        for facts in read(&file)? {
            let state = state(&facts, asked.within, now);
            let renew = (state != State::Good).then(|| renewal(&facts));
            all += 1;
            bad += usize::from(renew.is_some());
            if !asked.json.json {
                writeln!(out, "{}  {}: {}", phrase(state, &facts, now), who(&facts), file.display())?;
                renew.iter().try_for_each(|renew| writeln!(out, "  {renew}"))?;
            }
            let days_left = (facts.ends - now).num_days();
            checked.push(Checked { shown: Shown::new(&file, &facts), state, days_left, renew });
        }
    }
    if asked.json.json {
        print(out, &checked)?;
    }
    match bad {
        0 => Ok(()),
        _ => bail!("{bad} of {all} certificates must be issued anew; without them no connection comes about"),
    }
}

fn files_of(asked: &Check) -> Result<Vec<PathBuf>> {
    let given = if asked.files.is_empty() { std::slice::from_ref(&asked.dir.dir) } else { &asked.files };
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let within = |why| format!("{} cannot be read{why}", path.display());
        let mut here = Vec::new();
        for entry in fs::read_dir(path).with_context(|| within(""))? {
            here.push(entry.with_context(|| within(" to its end"))?.path());
        }
        here.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
        here.sort();
        if here.is_empty() {
            bail!("{} has no *.crt; `tandem-node cert init` makes a CA", path.display());
        }
        files.append(&mut here);
    }
    Ok(files)
}

fn phrase(state: State, facts: &Facts, now: DateTime<Utc>) -> String {
    match state {
        State::Good => format!("good until {}", day(facts.ends)),
        State::EndsSoon => format!("ENDS in {} days, on {}", (facts.ends - now).num_days(), day(facts.ends)),
        State::Ended => format!("ENDED on {}", day(facts.ends)),
        State::NotBegun => format!("NOT BEFORE {}; is a clock wrong?", second(facts.begins)),
    }
}

/// What makes the same certificate anew.
fn renewal(facts: &Facts) -> String {
    match &facts.holder {
        Holder::Party(identity) => {
            let addresses: String = facts.addresses.iter().map(|address| format!(" --address {address}")).collect();
            format!("tandem-node cert issue {} {}{addresses} --force", identity.kind(), identity.name())
        }
        Holder::Authority(_) => {
            "make another CA in another folder, and append its ca.crt to that of every host".to_owned()
        }
        Holder::Stranger { why, .. } => format!("it is useless here: {why}"),
    }
}

fn read(file: &Path) -> Result<Vec<Facts>> {
    let text = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.with_context(|| format!("{} is not PEM throughout", file.display()))?;
        all.push(Facts::read(&certificate).with_context(|| format!("{} cannot be shown", file.display()))?);
    }
    match all.is_empty() {
        true if text.windows(11).any(|window| window == b"PRIVATE KEY") => {
            bail!("{} is a private key; its certificate is the .crt beside it", file.display())
        }
        true => bail!("{} holds no certificate in PEM", file.display()),
        false => Ok(all),
    }
}

fn who(facts: &Facts) -> String {
    match &facts.holder {
        Holder::Party(identity) => identity.to_string(),
        Holder::Authority(subject) => format!("the CA {subject}"),
        Holder::Stranger { subject, .. } => format!("a stranger, {subject}"),
    }
}

fn day(time: DateTime<Utc>) -> String {
    time.date_naive().to_string()
}

fn second(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn print(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}
