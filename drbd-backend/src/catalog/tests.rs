use replication::Durability;

use super::*;

const UUID: Uuid = Uuid::from_u128(7);

fn definition() -> Definition {
    let replica = |node: &str, place| ReplicaDefinition {
        node: node.to_owned(),
        place,
        pool: "default".to_owned(),
        disk_id: Uuid::from_u128(u128::from(place) + 100),
    };
    Definition {
        uuid: UUID,
        name: "db-1".to_owned(),
        size_bytes: 8192,
        durability: Durability::Write,
        created_at: now(),
        state: Phase::Creating,
        replicas: vec![replica("cmp1", 0), replica("cmp2", 1)],
    }
}

struct Pool(tempfile::TempDir);

impl Pool {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn catalog(&self) -> Catalog {
        Catalog::load("cmp1", [("default".to_owned(), self.0.path().to_owned())].into())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn trouble(&self, uuid: Uuid) -> String {
        let entry = self.catalog().get(uuid).unwrap();
        assert!(entry.definition.is_none());
        entry.trouble.unwrap()
    }
}

#[test]
fn what_is_kept_is_found_again_and_what_is_removed_is_gone() {
    let pool = Pool::new();
    let catalog = pool.catalog();
    catalog.put(&definition()).unwrap();
    catalog.put(&definition().in_phase(Phase::Ready)).unwrap();
    assert_eq!(
        pool.catalog().definitions(),
        [definition().in_phase(Phase::Ready)]
            .map(|it| Definition { created_at: catalog.definitions()[0].created_at, ..it })
    );
    assert_eq!(fs::read_dir(pool.0.path()).unwrap().count(), 1, "nothing else is left behind");
    catalog.remove(UUID).unwrap();
    catalog.remove(UUID).unwrap();
    assert!(catalog.entries().is_empty() && pool.catalog().entries().is_empty());
}

#[test]
fn a_torn_file_is_trouble_for_its_volume_alone() {
    let pool = Pool::new();
    pool.catalog().put(&definition()).unwrap();
    let whole = fs::read_to_string(pool.0.path().join(format!("{UUID}.json"))).unwrap();
    let torn = Uuid::from_u128(8);
    for length in 0..whole.trim_end().len() {
        pool.write(&format!("{torn}.json"), &whole[..length]);
        assert!(pool.trouble(torn).contains("is damaged"), "{length}");
    }
    assert_eq!(pool.catalog().definitions().len(), 1);
}

#[test]
fn a_file_of_another_volume_pool_or_node_is_named() {
    let pool = Pool::new();
    let write = |uuid: Uuid, definition: &Definition| {
        pool.write(&format!("{uuid}.json"), &serde_json::to_string(definition).unwrap());
    };
    write(Uuid::from_u128(9), &definition());
    assert!(pool.trouble(Uuid::from_u128(9)).contains(&format!("defines volume {UUID}")));
    let mut elsewhere = definition();
    elsewhere.replicas[0].pool = "fast".to_owned();
    write(UUID, &elsewhere);
    assert!(pool.trouble(UUID).contains("in pool fast"));
    elsewhere.replicas.remove(0);
    write(UUID, &elsewhere);
    assert!(pool.trouble(UUID).contains("gives node cmp1 no replica"));
    write(UUID, &Definition { size_bytes: 1000, ..definition() });
    assert!(pool.trouble(UUID).contains("4096 is the nearest"));
}

#[test]
fn files_of_others_and_unfinished_ones_are_no_volumes() {
    let pool = Pool::new();
    for name in ["notes.json", "dead.json", "00000000000000000000000000000007.json"] {
        pool.write(name, "{}");
    }
    pool.write(".definition-abc.tmp", "{");
    assert!(pool.catalog().entries().is_empty());
    assert!(!pool.0.path().join(".definition-abc.tmp").exists());
}

#[test]
fn of_two_copies_neither_is_taken_for_the_other() {
    let (one, other) = (Pool::new(), Pool::new());
    one.catalog().put(&definition()).unwrap();
    fs::copy(one.0.path().join(format!("{UUID}.json")), other.0.path().join(format!("{UUID}.json"))).unwrap();
    let pools = [("default".to_owned(), one.0.path().to_owned()), ("fast".to_owned(), other.0.path().to_owned())];
    let catalog = Catalog::load("cmp1", pools.into());
    assert!(catalog.get(UUID).unwrap().trouble.unwrap().contains("define the same volume"));
}

#[test]
fn a_name_is_given_once() {
    let pool = Pool::new();
    let catalog = pool.catalog();
    catalog.put(&definition()).unwrap();
    let second = Definition { uuid: Uuid::from_u128(8), ..definition() };
    assert!(matches!(catalog.put(&second), Err(CatalogError::NameTaken { uuid: UUID, .. })));
    assert!(matches!(catalog.put(&Definition { replicas: Vec::new(), ..definition() }), Err(CatalogError::NoPool(_))));
}

#[test]
fn a_pool_that_is_away_stops_nobody() {
    let catalog = Catalog::load("cmp1", [("gone".to_owned(), PathBuf::from("/nonexistent/pool"))].into());
    assert!(catalog.entries().is_empty());
}

#[test]
fn sizes_are_blocks_and_the_nearest_is_said() {
    use definition::check_size;
    for good in [4096, 8192, MAX_SIZE_BYTES] {
        check_size(good).unwrap();
    }
    for (bad, nearest) in [
        (0, 4096),
        (1, 4096),
        (6143, 4096),
        (6144, 8192),
        (MAX_SIZE_BYTES + 1, MAX_SIZE_BYTES),
        (u64::MAX, MAX_SIZE_BYTES),
    ] {
        assert_eq!(check_size(bad), Err(Misfit::Size { size_bytes: bad, nearest }));
    }
}

#[test]
fn names_are_not_uuids_and_not_paths() {
    use definition::check_name;
    for good in ["db-1", "a", "vm.disk_2"] {
        check_name(good).unwrap();
    }
    for bad in ["", "../x", "a b", ".x", "6b0e3f6c-0000-4000-8000-000000000000", "6b0e3f6c000040008000000000000000"] {
        check_name(bad).unwrap_err();
    }
}

#[test]
fn the_default_pool_is_the_one_of_that_name_or_the_first() {
    assert_eq!(default_pool(["a", "default"].into_iter()), Some("default"));
    assert_eq!(default_pool(["b", "a"].into_iter()), Some("a"));
    assert_eq!(default_pool([].into_iter()), None);
}
