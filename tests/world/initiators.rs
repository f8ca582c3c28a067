//! Others' iSCSI initiators: libiscsi's tools, and QEMU's with its driver for iSCSI.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// What an attachment gives an initiator, and where it goes.
#[derive(Debug, Clone)]
pub struct Login {
    pub portal: SocketAddr,
    pub target: String,
    pub initiator: String,
    pub user: String,
    pub secret: String,
}

impl Login {
    /// What `tandem volume attach --json` printed.
    ///
    /// # Errors
    /// It is no attachment of an initiator.
    pub fn of(attachment: &serde_json::Value, portal: SocketAddr) -> Result<Self> {
        let text =
            |value: &serde_json::Value| value.as_str().map(str::to_owned).context("no attachment of an initiator");
        Ok(Self {
            portal,
            target: text(&attachment["target"])?,
            initiator: text(&attachment["initiator"])?,
            user: text(&attachment["chap"]["user"])?,
            secret: text(&attachment["chap"]["secret"])?,
        })
    }

    #[must_use]
    pub fn through(&self, portal: SocketAddr) -> Self {
        Self { portal, ..self.clone() }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("iscsi://{}/{}/0", self.portal, self.target)
    }

    /// One of libiscsi's tools, as this initiator; it goes after two minutes.
    #[must_use]
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["120", name, "-i", &self.initiator]);
        command.env("LIBISCSI_CHAP_USERNAME", &self.user).env("LIBISCSI_CHAP_PASSWORD", &self.secret);
        command
    }

    /// What a tool prints when all goes well.
    ///
    /// # Errors
    /// It does not.
    pub fn prints(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let done = self.tool(name).args(arguments).stdin(Stdio::null()).output()?;
        let said = said(&done);
        ensure!(done.status.success(), "{name} {arguments:?}: {said}");
        Ok(said)
    }

    /// qemu-io's commands, one after the other: what it prints, and whether all went well.
    ///
    /// # Errors
    /// There is no qemu-io: `make tools` gets it.
    pub fn qemu_io(&self, commands: &[&str]) -> Result<(bool, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/qemu/usr");
        let mut command = Command::new("timeout");
        command.arg("60").arg(folder.join("bin/qemu-io"));
        command.env("QEMU_MODULE_DIR", modules(&folder)?);
        for it in commands {
            command.args(["-c", it]);
        }
        let Self { portal, target, initiator, user, secret } = self;
        command.arg("--image-opts").arg(format!(
            "driver=iscsi,transport=tcp,portal={portal},target={target},lun=0,user={user},password={secret},\
             initiator-name={initiator}"
        ));
        let done = command.stdin(Stdio::null()).output()?;
        let said = said(&done);
        // It ends with 0 also if a read or write fails.
        let is_good = done.status.success() && !said.contains("failed") && !said.contains("error");
        Ok((is_good, said))
    }
}

fn said(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// Debian puts them into the architecture's own folder.
fn modules(folder: &Path) -> Result<PathBuf> {
    let libraries = std::fs::read_dir(folder.join("lib")).context("no QEMU is unpacked: `make tools`")?;
    let mut paths = libraries.filter_map(|entry| Some(entry.ok()?.path().join("qemu")));
    paths.find(|path| path.join("block-iscsi.so").exists()).context("no driver for iSCSI is unpacked: `make tools`")
}

/// What iscsi-test-cu thinks of a target, test by test.
#[derive(Debug, Default, Serialize)]
pub struct Verdicts {
    pub total: usize,
    /// They ran, and were content.
    pub passed: Vec<String>,
    pub failed: Vec<String>,
    pub skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// All tests, those that lose data included, over two paths.
///
/// # Errors
/// It did not come to its end.
pub fn iscsi_test_cu(login: &Login) -> Result<(Verdicts, String)> {
    let mut command = login.tool("iscsi-test-cu");
    // Where it wants a second initiator, another session of the same will do: its port is another one.
    command.args(["-d", "-V", "-I", &login.initiator, "-t", "ALL", &login.url(), &login.url()]);
    let done = command.stdin(Stdio::null()).output()?;
    let log = said(&done);
    ensure!(log.contains("Run Summary"), "iscsi-test-cu did not come to its end: {log}");
    Ok((verdicts(&log), log))
}

/// Its own summary counts a test that was skipped as passed.
fn verdicts(log: &str) -> Verdicts {
    let mut all = Verdicts::default();
    let mut suite = "";
    let mut test: Option<(String, Option<String>, bool)> = None;
    let mut end = |test: Option<(String, Option<String>, bool)>| {
        let Some((name, skipped, has_failed)) = test else { return };
        all.total += 1;
        match skipped {
            _ if has_failed => all.failed.push(name),
            Some(reason) => all.skipped.push(Skipped { name, reason }),
            None => all.passed.push(name),
        }
    };
    for line in log.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim();
        } else if let Some((name, _)) = line.split_once("Test: ").and_then(|(_, rest)| rest.split_once(" ...")) {
            end(test.take());
            test = Some((format!("{suite}.{name}"), None, false));
        }
        let Some((_, skipped, has_failed)) = &mut test else { continue };
        if let Some((_, reason)) = line.split_once("[SKIPPED]") {
            skipped.get_or_insert_with(|| reason.trim().to_owned());
        }
        *has_failed |= line.starts_with("FAILED");
    }
    end(test);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_the_log() {
        let log = "Suite: A\n  Test: One ...\n    [OK]\npassed\n  Test: Two ...    [SKIPPED] no thing.\npassed\nSuite: B\n  \
                   Test: One ...\nFAILED\n    1. x\nRun Summary:";
        let all = verdicts(log);
        assert_eq!(
            (all.total, &all.passed[..], &all.failed[..]),
            (3, &["A.One".to_owned()][..], &["B.One".to_owned()][..])
        );
        assert_eq!((all.skipped[0].name.as_str(), all.skipped[0].reason.as_str()), ("A.Two", "no thing."));
    }
}
