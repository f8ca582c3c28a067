//! What iSCSI initiators can rely on: others' tools, real processes of tandem-node.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::house::{House, Programs};
use system_tests::initiators::{Login, iscsi_test_cu};

const HOST: &str = "iqn.2026-11.org.example:one";

fn house(folder: &Path) -> Result<House> {
    let programs = Programs {
        node: env!("CARGO_BIN_EXE_tandem-node-under-test").into(),
        tandem: env!("CARGO_BIN_EXE_tandem-under-test").into(),
    };
    let house = House::create(folder, programs)?;
    house.done(&["volume", "create", "lun", "--size", "64M", "--on", "cmp1,cmp2", "--promote", "cmp1"])?;
    Ok(house)
}

fn attached(house: &House) -> Result<(Value, Login)> {
    let attachment = house.attach("lun", "host-1", HOST)?;
    let login = Login::of(&attachment, house.socket("cmp1", 3260)?)?;
    Ok((attachment, login))
}

#[test]
fn libiscsi_finds_no_fault_with_a_replicated_volume() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (verdicts, log) = iscsi_test_cu(&attached(&house)?.1)?;
    // It asks for one LBA and wants to hear of another (`make conformance-iscsi`).
    let failed: Vec<_> = verdicts.failed.iter().filter(|name| *name != "GetLBAStatus.UnmapSingle").collect();
    ensure!(failed.is_empty(), "{failed:?}: {log}");
    ensure!(verdicts.passed.len() >= 195, "{} passed, {:?}", verdicts.passed.len(), verdicts.skipped);
    house.all_live()?;
    house.until_whole("lun")?;
    Ok(())
}

#[test]
fn what_is_written_through_one_node_is_read_through_the_next() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let (is_good, said) = login.qemu_io(&["write -P 7 0 8M", "write -P 9 3k 700k", "discard 4M 1M", "flush"])?;
    ensure!(is_good, "{said}");
    let standby = login.through(house.socket("cmp2", 3260)?);
    let refused = standby.prints("iscsi-inq", &[&standby.url()]).err().context("a path that stands by is not ready")?;
    ensure!(refused.to_string().contains("0x040b"), "{refused}");
    let (is_good, said) = standby.qemu_io(&["read 0 4k"])?;
    ensure!(!is_good, "a Secondary never sends data: {said}");
    house.kill("cmp1")?;
    house.done(&["volume", "promote", "lun", "--node", "cmp2", "--wait", "20"])?;
    let (is_good, said) = standby.qemu_io(&[
        "read -P 7 0 3k",
        "read -P 9 3k 700k",
        "read -P 7 703k 3393k",
        "read -P 0 4M 1M",
        "read -P 7 5M 3M",
    ])?;
    ensure!(is_good, "{said}");
    Ok(())
}

#[test]
fn nobody_comes_in_without_an_attachment_and_its_secret() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let house = house(folder.path())?;
    let (attachment, login) = attached(&house)?;
    let listed = login.prints("iscsi-ls", &[&format!("iscsi://{}", login.portal)])?;
    ensure!(listed.contains(&login.target), "{listed}");
    let stranger = Login { initiator: "iqn.2026-11.org.example:stranger".to_owned(), ..login.clone() };
    let listed = stranger.prints("iscsi-ls", &[&format!("iscsi://{}", login.portal)])?;
    ensure!(!listed.contains("iqn."), "a stranger sees no target: {listed}");
    let wrong = Login { secret: "another secret than that".to_owned(), ..login.clone() };
    for login in [&stranger, &wrong] {
        let (is_good, said) = login.qemu_io(&["read 0 4k"])?;
        ensure!(!is_good, "{said}");
    }
    let log = house.log("cmp1")?;
    ensure!(log.contains("its name or secret is wrong") && log.contains("there is no target"), "{log}");
    let shown = house.done(&["volume", "attachments", "lun", "--json"])?;
    ensure!(!log.contains(&login.secret) && !shown.contains(&login.secret), "the secret is told to who attaches alone");
    let id = attachment["id"].as_str().context("no id")?;
    house.done(&["volume", "revoke", "lun", id])?;
    let (is_good, said) = login.qemu_io(&["read 0 4k"])?;
    ensure!(!is_good, "{said}");
    Ok(())
}

#[test]
fn garbage_ends_nothing_but_its_own_connection() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let mut random = fastrand::Rng::with_seed(5);
    let half_open = TcpStream::connect(login.portal)?;
    for length in [0, 1, 47, 48, 49, 4096, 100_000] {
        let mut stream = TcpStream::connect(login.portal)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        if length > 48 {
            // As if it logged in.
            (bytes[0], bytes[4], bytes[5]) = (0x43, 0, 0);
        }
        // It may be closed before all is sent.
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    let (is_good, said) = login.qemu_io(&["write -P 3 0 64k", "read -P 3 0 64k"])?;
    ensure!(is_good, "{said}");
    drop(half_open);
    house.all_live()
}
