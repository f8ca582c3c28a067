//! What iSCSI initiators can rely on: others' tools, real processes of tandem-node.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::house::{ARBITER, House, Programs};
use system_tests::initiators::{Login, iscsi_test_cu};
use system_tests::iscsi::{NO_TAG, Pdu, READ, Session, WRITE, transfer};

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

/// NOT READY, asymmetric access state transition.
const TRY_AGAIN: (u8, u8, u16) = (2, 2, 0x040a);

#[test]
fn what_cannot_begin_is_told_to_try_again_before_linux_gives_it_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let mut session = Session::log_in(&login, 1, &["ImmediateData=Yes"])?;
    session.is_ready()?;
    ensure!(session.ask(&transfer(WRITE, 0, 8), 0, &[1; 4096])?.status().0 == 0, "it is written");
    house.kill(ARBITER)?;
    house.kill("cmp2")?;
    // A write that comes before the Primary has missed its peer has begun.
    house.until("the volume is frozen", || Ok(house.volume("lun")?["serving"] == false))?;
    let asked = Instant::now();
    let answer = session.ask(&transfer(WRITE, 8, 8), 0, &[2; 4096])?;
    ensure!(answer.status() == TRY_AGAIN, "{:x?}", answer.status());
    ensure!((15..29).contains(&asked.elapsed().as_secs()), "after {:?}", asked.elapsed());
    house.start(ARBITER)?;
    for _ in 0..10 {
        if session.ask(&transfer(WRITE, 8, 8), 0, &[3; 4096])?.status().0 == 0 {
            let (is_good, said) = login.qemu_io(&["read -P 1 0 4k", "read -P 3 4k 4k"])?;
            ensure!(is_good, "{said}");
            return Ok(());
        }
    }
    anyhow::bail!("the volume does not thaw")
}

/// PERSISTENT RESERVE IN (SPC-4, 6.15): what READ KEYS or READ RESERVATION says.
fn reservations(session: &mut Session, action: u8) -> Result<Vec<u8>> {
    let pdu = session.command(&[0x5e, action, 0, 0, 0, 0, 0, 0, 64, 0], 64, &[]);
    session.send(&pdu)?;
    Ok(session.response()?.data)
}

/// PERSISTENT RESERVE OUT (SPC-4, 6.16).
fn reserve(session: &mut Session, action: u8, kind: u8, keys: [u64; 2]) -> Result<(u8, u8, u16)> {
    let list = [keys[0].to_be_bytes(), keys[1].to_be_bytes(), [0; 8]].concat();
    Ok(session.ask(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], 0, &list)?.status())
}

#[test]
fn reservations_are_changed_through_a_path_that_stands_by_too() -> Result<()> {
    const REGISTER: u8 = 0;
    const RESERVE: u8 = 1;
    const PREEMPT: u8 = 4;
    const EXCLUSIVE: u8 = 3;
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let mut active = Session::log_in(&login, 1, &["ImmediateData=Yes"])?;
    active.is_ready()?;
    let mut standby = Session::log_in(&login.through(house.socket("cmp2", 3260)?), 2, &["ImmediateData=Yes"])?;
    standby.ask(&[0; 6], 0, &[])?; // hears of the reset
    for (session, key) in [(&mut standby, 22), (&mut active, 11)] {
        ensure!(reserve(session, REGISTER, 0, [0, key])?.0 == 0, "{key} is registered");
    }
    ensure!(reserve(&mut standby, RESERVE, EXCLUSIVE, [22, 0])?.0 == 0, "it is reserved");
    let [of_active, of_standby] = [reservations(&mut active, 0)?, reservations(&mut standby, 0)?];
    ensure!(of_active == of_standby && of_active[7] == 16, "{of_active:?} and {of_standby:?}");
    ensure!(
        active.ask(&transfer(WRITE, 0, 8), 0, &[1; 4096])?.head[3] == 0x18,
        "a reservation of another keeps it out"
    );
    // Who registered elsewhere is told what was done to it here.
    ensure!(reserve(&mut active, PREEMPT, EXCLUSIVE, [11, 22])?.0 == 0, "the holder is preempted");
    ensure!(standby.ask(&[0; 6], 0, &[])?.status() == (2, 6, 0x2a05), "its registration was preempted");
    ensure!(active.ask(&transfer(WRITE, 0, 8), 0, &[1; 4096])?.status().0 == 0, "it holds the reservation now");
    ensure!(reserve(&mut standby, RESERVE, EXCLUSIVE, [22, 0])?.0 == 0x18, "it is nobody any more");
    house.kill("cmp1")?;
    let keys = reservations(&mut standby, 0)?;
    ensure!(keys[7] == 8 && keys[15] == 11, "they have survived the Primary: {keys:?}");
    Ok(())
}

#[test]
fn whoever_breaks_the_rules_loses_his_own_session() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let mut bystander = Session::log_in(&login, 200, &["InitialR2T=No"])?;
    bystander.is_ready()?;
    type Abuse = fn(&mut Session) -> Result<()>;
    let abuses: [(&str, Abuse); 5] = [
        ("a header's digest is wrong", |it| {
            let mut bytes = Pdu::new(0x40, 0x80, 7).word(20, NO_TAG).bytes();
            bytes.extend([1, 2, 3, 4]);
            Ok(it.stream.write_all(&bytes)?)
        }),
        ("bytes of data in one PDU, where", |it| {
            let mut pdu = it.command(&transfer(WRITE, 0, 8), 0, &[]);
            pdu.head[5..8].copy_from_slice(&[0xff; 3]);
            // The length is a lie, which no digest tells.
            let mut bytes = pdu.bytes();
            bytes[5..8].copy_from_slice(&[0xff; 3]);
            let sum = crc32c::crc32c(&bytes).to_le_bytes();
            bytes.extend(sum);
            Ok(it.stream.write_all(&bytes)?)
        }),
        ("came before", |it| {
            it.cmd_sn += 3;
            let pdu = it.command(&[0; 6], 0, &[]);
            it.send(&pdu)
        }),
        ("nobody asked for it", |it| {
            let mut write = it.command(&transfer(WRITE, 0, 8), 0, &[]).word(20, 4096);
            write.head[1] = 0xa0;
            let tag = write.at(16);
            it.send(&write)?;
            it.send(&Pdu::new(0x05, 0x80, tag).word(20, 0x1234))
        }),
        ("it logged in again", |it| it.send(&Pdu::new(0x43, 0x87, 1))),
    ];
    for (number, (_, abuse)) in (1..).zip(&abuses) {
        let mut session = Session::log_in(&login, number, &["HeaderDigest=CRC32C", "InitialR2T=No"])?;
        session.is_ready()?;
        abuse(&mut session)?;
        ensure!(session.is_closed_within(Duration::from_secs(10))?, "abuse {number} is put up with");
        ensure!(bystander.ask(&transfer(WRITE, 0, 8), 0, &[number; 4096])?.status().0 == 0, "abuse {number}");
    }
    let log = house.log("cmp1")?;
    for (why, _) in abuses {
        ensure!(log.contains(why), "{why}: {log}");
    }
    house.all_live()
}

#[test]
fn who_reads_nothing_takes_little_memory_and_nobodys_turn() -> Result<()> {
    const BLOCKS: u16 = 8192;
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let mut bystander = Session::log_in(&login, 200, &[])?;
    bystander.is_ready()?;
    let before = memory_mib(house.process("cmp1")?)?;
    let mut deaf = Vec::new();
    for number in 0..4 {
        let mut session = Session::log_in(&login, number, &["MaxRecvDataSegmentLength=262144"])?;
        session.is_ready()?;
        session.stream.set_nonblocking(true)?;
        for _ in 0..1000 {
            let bytes = session.command(&transfer(READ, 0, BLOCKS), u32::from(BLOCKS) * 512, &[]).bytes();
            if session.stream.write(&bytes).is_err() {
                break;
            }
        }
        deaf.push(session);
    }
    for number in 0..50 {
        ensure!(bystander.ask(&transfer(WRITE, 0, 8), 0, &[number; 4096])?.status().0 == 0, "write {number}");
    }
    let after = memory_mib(house.process("cmp1")?)?;
    println!("{before} MiB before, {after} MiB with four that asked for 4 GiB each and took nothing");
    ensure!(after < before + 160, "{before} MiB before, {after} MiB after");
    drop(deaf);
    house.all_live()
}

/// What a process has in memory, in MiB.
fn memory_mib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
}

#[test]
fn a_flood_of_logins_from_one_address_keeps_nobody_else_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut house = house(folder.path())?;
    let (_, login) = attached(&house)?;
    let mut half_open = Vec::new();
    for _ in 0..900 {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &"127.0.0.9:0".parse::<SocketAddr>()?)?;
        rustix::net::connect(&socket, &login.portal)?;
        half_open.push(socket);
    }
    let (is_good, said) = login.qemu_io(&["write -P 3 0 64k", "read -P 3 0 64k"])?;
    ensure!(is_good, "{said}");
    let log = house.log("cmp1")?;
    let lines = log.matches("too many initiators are logging in").count();
    ensure!((1..40).contains(&lines), "{lines} lines tell of it");
    house.all_live()
}

#[test]
fn who_is_revoked_while_he_writes_has_written_for_the_last_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let house = house(folder.path())?;
    let (attachment, login) = attached(&house)?;
    let mut standby = Session::log_in(&login.through(house.socket("cmp2", 3260)?), 9, &[])?;
    let mut session = Session::log_in(&login, 1, &[])?;
    session.is_ready()?;
    let acknowledged = Arc::new(AtomicU8::new(0));
    let seen = acknowledged.clone();
    let writer = std::thread::spawn(move || {
        for number in (1..=250).cycle().take(1_000_000) {
            match session.ask(&transfer(WRITE, 0, 8), 0, &[number; 4096]) {
                Ok(answer) if answer.status().0 == 0 => seen.store(number, Ordering::SeqCst),
                _ => return session,
            }
        }
        session
    });
    house.until("it writes", || Ok(acknowledged.load(Ordering::SeqCst) >= 20))?;
    let id = attachment["id"].as_str().context("no id")?;
    house.done(&["volume", "revoke", "lun", id])?;
    let last = acknowledged.load(Ordering::SeqCst);
    let mut session = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    ensure!(acknowledged.load(Ordering::SeqCst) == last, "a write was acknowledged after the revoke");
    ensure!(session.is_closed_within(Duration::from_secs(5))?, "the session with the Primary stands");
    ensure!(standby.is_closed_within(Duration::from_secs(5))?, "the session with the Secondary stands");
    let (_, login) = attached(&house)?;
    let mut session = Session::log_in(&login, 1, &[])?;
    session.is_ready()?;
    let read = |session: &mut Session| Ok::<_, anyhow::Error>(session.ask(&transfer(READ, 0, 8), 4096, &[])?.data);
    let first = read(&mut session)?;
    // The write under way may have been done, and no other.
    ensure!(first == vec![last; 4096] || first == vec![last % 250 + 1; 4096], "{} after {last}", first[0]);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        ensure!(read(&mut session)? == first, "somebody writes on");
    }
    Ok(())
}
