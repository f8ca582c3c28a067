//! `conformance-iscsi`: what libiscsi's tests think of a replicated volume's target.
//!
//! Its tests are opinions too: one that asks for what a clause forbids stands under `disputed`, with the clause. All run over a thin unit; none of them wants a
//! fully provisioned one, so there is no second pass.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use system_tests::house::{House, Programs};
use system_tests::initiators::{Login, iscsi_test_cu};

/// Tests that contradict a clause.
const DISPUTED: [(&str, &str); 1] = [(
    "GetLBAStatus.UnmapSingle",
    "SBC-3, 5.4.2.1: the first descriptor begins with the LBA that was asked for; it asks for i + 1 and wants i + 8, which are the same only where a physical \
     block has one logical block",
)];

/// What nobody has to pass: why, and how the reasons begin.
const MAY_SKIP: [&str; 7] =
    ["Sanitize.", "NoMedia.", "PreventAllow.", "ReadDefectData", "ReadOnly.", "StartStopUnit.", "WriteAtomic16."];

fn main() -> Result<()> {
    let folder = Path::new("target/conformance");
    fs::create_dir_all(folder)?;
    let work = tempfile::tempdir_in(folder)?;
    let programs = std::env::current_exe()?.parent().context("this program is in no folder")?.to_owned();
    let (node, tandem) = (programs.join("tandem-node-under-test"), programs.join("tandem-under-test"));
    let house = House::create(work.path(), Programs { node, tandem })?;
    house.done(&["volume", "create", "lun", "--size", "256M", "--on", "cmp1,cmp2", "--promote", "cmp1"])?;
    let portal = house.socket("cmp1", 3260)?;
    let attachment = house.attach("lun", "host-1", "iqn.2026-11.org.example:one")?;
    let (verdicts, log) = iscsi_test_cu(&Login::of(&attachment, portal)?)?;
    fs::write(folder.join("iscsi.log"), &log)?;
    let clause = |name: &str| DISPUTED.iter().find(|(disputed, _)| *disputed == name).map(|(_, clause)| *clause);
    let (disputed, failed): (Vec<_>, Vec<_>) = verdicts.failed.iter().partition(|name| clause(name).is_some());
    let disputed: Vec<_> = disputed.iter().map(|name| json!({ "name": name, "clause": clause(name) })).collect();
    let may_skip = |name: &str| MAY_SKIP.iter().any(|suite| name.starts_with(suite));
    let others: Vec<_> = verdicts.skipped.iter().filter(|it| !may_skip(&it.name)).map(|it| &it.name).collect();
    let (passed, missed) = (verdicts.passed.len(), failed.len());
    let result = json!({
        "total": verdicts.total, "passed": passed, "failed": failed, "disputed": disputed, "skipped": verdicts.skipped,
        "rows": [{ "name": "iscsi-test-cu", "total": verdicts.total, "passed": passed, "failed": missed,
                   "disputed": disputed.len(), "skipped": verdicts.skipped.len(), "skipped_beyond_what_may_be": others }],
        "targets": [
            { "name": "failed", "value": missed, "limit": 0, "better": "lower", "holds": missed == 0 },
            { "name": "passed", "value": passed, "limit": 195, "better": "higher", "holds": passed >= 195 },
        ],
    });
    fs::write(folder.join("iscsi.json"), serde_json::to_string_pretty(&result)?)?;
    println!(
        "{} tests: {passed} passed, {missed} failed, {} disputed, {} skipped",
        verdicts.total,
        disputed.len(),
        verdicts.skipped.len()
    );
    failed.iter().for_each(|name| println!("failed: {name}"));
    others.iter().for_each(|name| println!("skipped, and need not be: {name}"));
    println!("-> {}", folder.join("iscsi.json").display());
    Ok(())
}
