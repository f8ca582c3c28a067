//! Holds every crate of the workspace to the table of who may import whom.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Each crate, and the crates of ours that it may import. A crate that is not here has no place in the house yet.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("openstack-client", &[]),
    ("configuration", &[]),
    ("failover", &[]),
    ("replication", &[]),
    ("iscsi", &[]),
    ("tandem-ha", &["configuration", "failover", "openstack-client"]),
    ("tandem-node", &["configuration", "replication", "iscsi"]),
    ("tandem", &["openstack-client"]),
    ("system-tests", &["openstack-client", "failover", "replication", "iscsi", "tandem-ha", "tandem-node", "tandem"]),
];

#[test]
fn every_crate_imports_only_what_its_layer_may() -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let imports = imports_within_the_workspace()?;
    for (importer, imported) in &imports {
        let may = allowed.get(importer.as_str()).with_context(|| format!("{importer} is not in the table"))?;
        for name in imported {
            ensure!(may.contains(&name.as_str()), "{importer} imports {name}, which its layer may not");
        }
    }
    ensure!(imports.contains_key("system-tests"), "cargo told of no crate that we know: {imports:?}");
    Ok(())
}

/// Every crate of the workspace with those of ours that it imports, dev-dependencies included.
fn imports_within_the_workspace() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let told = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()?;
    ensure!(told.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    Ok(packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let imported = dependencies.filter_map(|dependency| dependency["name"].as_str());
            let name = package["name"].as_str().unwrap_or_default().to_owned();
            (name, imported.filter(|name| ours.contains(name)).map(str::to_owned).collect())
        })
        .collect())
}
