//! Every file that `make fuzz` has kept, through the functions that it bends bytes for.

mod cdb;
mod login;
mod metadata;
mod nbd;
mod peer;
mod session;

use std::path::Path;

use tandem_node::export::nbd as protocol;

fn each_file_of(target: &str, take: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in folder.read_dir().expect("the corpus is in the repository") {
        let path = entry.expect("it can be listed").path();
        println!("{}", path.display());
        take(&std::fs::read(&path).expect("it can be read"));
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}

#[test]
fn what_peers_send_is_refused_or_understood() {
    each_file_of("peer", peer::take);
}

#[test]
fn what_clients_send_is_refused_or_understood() {
    each_file_of("nbd", nbd::take);
}

#[test]
fn what_lies_on_disk_is_refused_or_understood() {
    each_file_of("metadata", metadata::take);
}

#[test]
fn what_initiators_send_before_their_session_is_refused_or_understood() {
    each_file_of("login", login::take);
}

#[test]
fn what_initiators_send_is_refused_or_understood() {
    each_file_of("session", session::take);
}

#[test]
fn what_initiators_command_is_refused_or_understood() {
    each_file_of("cdb", cdb::take);
}
