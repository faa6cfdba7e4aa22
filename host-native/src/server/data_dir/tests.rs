//! Tests of the data directory.

use quorlock_core::config::Limits;
use quorlock_core::membership::Membership;

use super::*;
use crate::server::storage::Storage as _;

fn cluster(digit: char) -> ClusterId {
    digit.to_string().repeat(32).parse().expect("32 digits")
}

fn new_identity() -> NewIdentity {
    NewIdentity { cluster: cluster('a'), node: NodeId::new(2) }
}

fn state() -> Recovered {
    let membership = Membership::new((1..=3).map(NodeId::new)).expect("three nodes");
    Recovered::bootstrap(membership, Limits::default()).expect("the defaults work")
}

fn bootstrap(path: &Path) -> Result<(DataDir, Identity), DataDirError> {
    DataDir::bootstrap(path, &new_identity(), &state())
}

fn open(path: &Path) -> Result<(DataDir, Identity), DataDirError> {
    DataDir::open(path, &cluster('a'), NodeId::new(2))
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("there is space");
    let path = place.path().join("deep").join("node-2");
    (place, path)
}

#[test]
fn is_made_once_and_counts_its_starts() {
    let (_place, path) = place();
    let (directory, identity) = bootstrap(&path).expect("nothing is there");
    assert_eq!((identity.node, identity.starts), (NodeId::new(2), 1));
    assert_eq!(directory.path(), path);
    let recovered = directory.open_log().expect("it was made").recover().expect("it is whole");
    assert_eq!(recovered, Some(state()));
    drop(directory);
    for starts in 2..5 {
        let (directory, opened) = open(&path).expect("it was made");
        assert_eq!(opened, Identity { starts, ..identity.clone() });
        drop(directory);
    }
    let refused = bootstrap(&path).expect_err("it holds a node");
    assert!(matches!(refused, DataDirError::Bootstrapped { .. }), "{refused}");
    assert_eq!(open(&path).expect("it was left alone").1.starts, 5);
}

#[test]
fn no_two_directories_have_the_same_incarnation() {
    let ((_one, one), (_two, two)) = (place(), place());
    let (_first, first) = bootstrap(&one).expect("nothing is there");
    let (_second, second) = bootstrap(&two).expect("nothing is there");
    assert_ne!(first.incarnation, second.incarnation);
}

#[test]
fn a_lost_disk_is_refused() {
    let (place, path) = place();
    let refused = open(&path).expect_err("nothing is there");
    assert!(matches!(refused, DataDirError::Empty { .. }), "{refused}");
    assert!(refused.to_string().contains("must not vote"), "{refused}");
    assert!(!path.exists(), "nothing was made");
    let refused = open(place.path()).expect_err("it is empty");
    assert!(matches!(refused, DataDirError::Empty { .. }), "{refused}");
}

#[test]
fn a_lost_log_is_refused() {
    let (_place, path) = place();
    drop(bootstrap(&path).expect("nothing is there"));
    fs::remove_dir_all(path.join(LOG)).expect("it is there");
    let (directory, _) = open(&path).expect("the identity is there");
    assert!(directory.open_log().is_err());
}

#[test]
fn another_cluster_or_node_is_refused() {
    let (_place, path) = place();
    drop(bootstrap(&path).expect("nothing is there"));
    let refused = DataDir::open(&path, &cluster('b'), NodeId::new(2)).expect_err("another cluster");
    assert!(matches!(refused, DataDirError::OtherCluster { .. }), "{refused}");
    let refused = DataDir::open(&path, &cluster('a'), NodeId::new(3)).expect_err("another node");
    assert!(matches!(refused, DataDirError::OtherNode { .. }), "{refused}");
    assert_eq!(open(&path).expect("it was left alone").1.starts, 2);
}

#[test]
fn a_newer_format_is_refused() {
    let (_place, path) = place();
    drop(bootstrap(&path).expect("nothing is there"));
    let file = path.join(IDENTITY);
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, text.replace("format = 1", "format = 2\nshards = 7")).expect("there is space");
    let refused = open(&path).expect_err("a later version");
    assert!(matches!(refused, DataDirError::NewerFormat { found: 2, .. }), "{refused}");
}

#[test]
fn an_edited_identity_is_refused() {
    let (_place, path) = place();
    drop(bootstrap(&path).expect("nothing is there"));
    let file = path.join(IDENTITY);
    let text = fs::read_to_string(&file).expect("it is there");
    for changed in [
        text.replace("starts = 1", "starts = 9"),
        text.replace("node = 2", "node = 3"),
        text.replace("node = 2", "node = 18446744073709551615"),
        text.replace("node", "nodes"),
        text[..text.len() / 2].to_owned(),
        String::new(),
        format!("{text}\nmore = 1\n"),
    ] {
        fs::write(&file, changed).expect("there is space");
        let refused = open(&path).expect_err("it was edited");
        assert!(matches!(refused, DataDirError::Damaged { .. }), "{refused}");
    }
    fs::write(&file, text).expect("there is space");
    assert_eq!(open(&path).expect("it is as it was").1.starts, 2);
}

#[test]
fn one_process_at_a_time() {
    let (_place, path) = place();
    let (directory, _) = bootstrap(&path).expect("nothing is there");
    let refused = open(&path).expect_err("it is in use");
    let pid = std::process::id().to_string();
    assert!(matches!(&refused, DataDirError::Locked { holder, .. } if holder.contains(&pid)));
    drop(directory);
    let (_directory, identity) = open(&path).expect("it is free");
    assert_eq!(identity.starts, 2, "the refused start was not counted");
}

#[test]
fn nothing_of_others_is_touched() {
    for (name, is_directory) in
        [("notes.txt", false), ("log", true), ("lock", false), (".bashrc", false)]
    {
        let home = tempfile::tempdir().expect("there is space");
        let path = home.path().join(name);
        if is_directory {
            fs::create_dir(&path).expect("there is space");
        } else {
            fs::write(&path, b"mine").expect("there is space");
        }
        for refused in [bootstrap(home.path()), open(home.path())] {
            let refused = refused.expect_err("it belongs to somebody");
            assert!(matches!(refused, DataDirError::Foreign { .. }), "{name}: {refused}");
        }
        let names: Vec<_> = fs::read_dir(home.path()).expect("it is there").collect();
        assert_eq!(names.len(), 1, "{name}: nothing was put there");
        assert!(is_directory || fs::read(&path).expect("it is there") == b"mine");
    }
}

/// Whatever a bootstrap leaves that does not end, it can be done again, and cannot be opened.
#[test]
fn an_interrupted_bootstrap_is_done_again() {
    let (_place, whole) = place();
    drop(bootstrap(&whole).expect("nothing is there"));
    let steps: [&[&str]; 7] = [
        &[],
        &[LOCK],
        &[LOCK, LOG],
        &[LOCK, LOG, "files", "fetched", "quarantine"],
        &[LOCK, LOG, "log/store", "files"],
        &[LOCK, LOG, "log/store", "log/snapshot-0-1", "log/mark", "files", "fetched", "quarantine"],
        &[LOCK, LOG, "log/store", "log/mark", "files", "identity.toml.tmp"],
    ];
    for step in steps {
        let (_place, path) = place();
        fs::create_dir_all(&path).expect("there is space");
        for name in step {
            let (from, to) = (whole.join(name), path.join(name));
            if from.is_dir() {
                fs::create_dir(&to).expect("there is space");
            } else if from.is_file() {
                fs::copy(&from, &to).expect("there is space");
            } else {
                fs::write(&to, b"half").expect("there is space");
            }
        }
        let refused = open(&path).expect_err("it is not whole");
        assert!(matches!(refused, DataDirError::Empty { .. }), "{step:?}: {refused}");
        let (directory, _) = bootstrap(&path).expect("only our own is there");
        let recovered = directory.open_log().expect("it was made").recover();
        assert_eq!(recovered.expect("it is whole"), Some(state()), "{step:?}");
    }
}

/// Leftovers hold no guarded file: a directory that has one was in use, and lost its identity.
#[test]
fn a_node_without_identity_is_no_leftover() {
    let (_place, path) = place();
    drop(bootstrap(&path).expect("nothing is there"));
    fs::write(path.join("files").join("journal"), b"line").expect("there is space");
    fs::remove_file(path.join(IDENTITY)).expect("it is there");
    for refused in [bootstrap(&path), open(&path)] {
        let refused = refused.expect_err("it is no leftover");
        assert!(matches!(refused, DataDirError::Foreign { .. }), "{refused}");
    }
}

#[test]
fn remembers_the_disks_of_its_peers() {
    let (_place, path) = place();
    let (directory, _) = bootstrap(&path).expect("nothing is there");
    let (one, three) = (NodeId::new(1), NodeId::new(3));
    directory.remember_peer(one, 0xabc, 5).expect("it is new");
    directory.remember_peer(three, 0xdef, 1).expect("it is new");
    directory.remember_peer(one, 0xabc, 5).expect("the same");
    directory.remember_peer(one, 0xabc, 7).expect("started again");
    drop(directory);
    let (directory, _) = open(&path).expect("it was made");
    let refused = directory.remember_peer(one, 0xabc, 6).expect_err("an older disk");
    assert_eq!(refused, PeerRefused::RolledBack { node: one, found: 6, known: 7 });
    let refused = directory.remember_peer(one, 0xabd, 8).expect_err("another disk");
    let (found, known) = (0xabd, 0xabc);
    assert_eq!(refused, PeerRefused::OtherIncarnation { node: one, found, known });
    directory.remember_peer(one, 0xabc, 7).expect("the same");
    directory.remember_peer(three, 0xdef, 2).expect("started again");
}

#[test]
fn remembers_so_many_peers() {
    let (_place, path) = place();
    let (directory, _) = bootstrap(&path).expect("nothing is there");
    for node in 0..peers::PEERS_MAX as u64 {
        directory.remember_peer(NodeId::new(node), node, 1).expect("there is room");
    }
    let refused = directory.remember_peer(NodeId::MAX, 1, 1).expect_err("there is none");
    assert!(matches!(refused, PeerRefused::NotRemembered { .. }), "{refused}");
    directory.remember_peer(NodeId::ZERO, 0, 2).expect("it is known");
}

/// A peer that cannot be remembered is refused, and not remembered in memory alone.
#[test]
fn a_peer_counts_when_it_is_on_the_disk() {
    let (_place, path) = place();
    let (directory, _) = bootstrap(&path).expect("nothing is there");
    let blocked = durable::temporary(&path.join(PEERS));
    fs::create_dir(&blocked).expect("there is space");
    for _ in 0..2 {
        let refused =
            directory.remember_peer(NodeId::new(1), 1, 1).expect_err("it cannot be written");
        assert!(matches!(refused, PeerRefused::NotRemembered { .. }), "{refused}");
    }
    fs::remove_dir(&blocked).expect("it is there");
    directory.remember_peer(NodeId::new(1), 1, 1).expect("now it can");
}

#[test]
fn an_edited_list_of_peers_is_refused() {
    let (_place, path) = place();
    drop(bootstrap(&path).expect("nothing is there"));
    for text in ["1 = 2\n", "1 = { incarnation = \"x\", starts = 1 }\n", "\u{0}"] {
        fs::write(path.join(PEERS), text).expect("there is space");
        let refused = open(&path).expect_err("it was edited");
        assert!(matches!(refused, DataDirError::Damaged { .. }), "{refused}");
    }
    fs::write(path.join(PEERS), "# nobody\n\n").expect("there is space");
    open(&path).expect("nobody is known");
}
