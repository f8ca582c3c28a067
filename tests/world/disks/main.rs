//! The processes behind a disk of a test. See `disks::server`.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    system_tests::disks::server::run(&arguments)
}
