//! Somebody changes the files from outside.

use std::os::unix::fs::symlink;

use super::*;

/// A way to change a file that holds ten digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Cut,
    Emptied,
    Longer,
    Removed,
    ReplacedByAnEqualOne,
    ReplacedByALink,
    LinkedFromElsewhere,
    ReplacedByADirectory,
    Edited,
}

impl Change {
    const ALL: [Self; 9] = [
        Self::Cut,
        Self::Emptied,
        Self::Longer,
        Self::Removed,
        Self::ReplacedByAnEqualOne,
        Self::ReplacedByALink,
        Self::LinkedFromElsewhere,
        Self::ReplacedByADirectory,
        Self::Edited,
    ];

    fn make(self, path: &Path, elsewhere: &Path) {
        let write = |path: &Path, content: &[u8]| fs::write(path, content).expect("there is space");
        let remove = |path: &Path| fs::remove_file(path).expect("it is there");
        match self {
            Self::Cut => write(path, b"012345678"),
            Self::Emptied => write(path, b""),
            Self::Longer => write(path, b"0123456789 and more"),
            Self::Removed => remove(path),
            Self::ReplacedByAnEqualOne => {
                write(elsewhere, b"0123456789");
                fs::rename(elsewhere, path).expect("there is space");
            }
            Self::ReplacedByALink => {
                remove(path);
                write(elsewhere, b"0123456789");
                symlink(elsewhere, path).expect("there is space");
            }
            Self::LinkedFromElsewhere => fs::hard_link(path, elsewhere).expect("there is space"),
            Self::ReplacedByADirectory => {
                remove(path);
                fs::create_dir(path).expect("there is space");
            }
            Self::Edited => write(path, b"1234567890"),
        }
    }
}

#[test]
fn is_seen_before_an_append() {
    for (change, is_open) in
        Change::ALL.into_iter().flat_map(|change| [(change, true), (change, false)])
    {
        let mut place = Place::new();
        let mut files = place.verified();
        place.append(&mut files, "journal", b"0123456789");
        files.sync().expect("the disk is fine");
        if !is_open {
            files.open.clear();
        }
        let elsewhere = place.directory.path().join("elsewhere");
        change.make(&place.path("journal"), &elsewhere);
        let damaged = is_damaged(files.write_at(&name("journal"), 10, b"more"));
        // To see an edited byte would be to read the whole file.
        assert_eq!(damaged, change != Change::Edited, "{change:?}");
        if damaged {
            assert!(is_damaged(files.read_at(&name("journal"), 0, 1)), "{change:?}");
        }
        let untouched = fs::read(&elsewhere).is_ok_and(|content| content == b"0123456789");
        assert!(untouched || !elsewhere.exists(), "{change:?}: nothing is written through a link");
    }
}

#[test]
fn is_seen_at_the_start() {
    for change in Change::ALL {
        let mut place = Place::new();
        let mut files = place.verified();
        place.append(&mut files, "journal", b"0123456789");
        place.append(&mut files, "other", b"as it was");
        drop(files);
        change.make(&place.path("journal"), &place.directory.path().join("elsewhere"));
        let mut files = place.open();
        let missing = files.verify(place.views().into_iter()).expect("they can be read");
        // Nothing is wrong with what is recorded of these.
        if [Change::Longer, Change::ReplacedByAnEqualOne].contains(&change) {
            assert_eq!(missing, []);
            place.check();
            continue;
        }
        assert_eq!(missing, [place.missing("journal", 0)], "{change:?}");
        assert_eq!(files.length(&name("journal")), None);
        assert_eq!(place.quarantine().len(), usize::from(change != Change::Removed), "{change:?}");
        // Fetched anew, it is as it was.
        files.install(&missing[0], 0, b"0123456789").expect("there is space");
        assert!(files.complete(&missing[0]).expect("there is space"), "{change:?}");
        place.append(&mut files, "journal", b" and more");
        place.check();
    }
}

#[test]
fn strangers_are_put_aside() {
    let mut place = Place::new();
    let mut files = place.verified();
    let long = "y".repeat(250);
    place.append(&mut files, &long, b"known");
    drop(files);
    let below = place.path(&names::encode(&name(&long))[0]);
    fs::write(below.join("=z"), b"?").expect("there is space");
    fs::write(place.path("stranger"), b"?").expect("there is space");
    fs::write(place.path("UPPER CASE"), b"?").expect("there is space");
    fs::create_dir(place.path("directory")).expect("there is space");
    fs::write(place.path("directory").join("inside"), b"?").expect("there is space");
    symlink("/etc/passwd", place.path("link")).expect("there is space");
    place.verified();
    place.check();
    assert_eq!(place.quarantine().len(), 5, "{:?}", place.quarantine());
    let left = fs::read_dir(place.directory.path().join("files")).expect("it is there").count();
    assert_eq!(left, 1);
}

/// A stranger that appears where a new file is to be made.
#[test]
fn a_stranger_in_the_way() {
    let mut place = Place::new();
    let mut files = place.verified();
    fs::write(place.path("journal"), b"not ours").expect("there is space");
    place.append(&mut files, "journal", b"ours");
    symlink("/etc/passwd", place.path("other")).expect("there is space");
    place.append(&mut files, "other", b"ours");
    place.check();
    assert_eq!(place.quarantine(), ["1-journal", "2-other"]);
}

/// A directory on the way to a file is a link to another place.
#[test]
fn no_path_leads_through_a_link() {
    let mut place = Place::new();
    let mut files = place.verified();
    let long = "y".repeat(250);
    place.append(&mut files, &long, b"known");
    files.sync().expect("the disk is fine");
    let directory = place.path(&names::encode(&name(&long))[0]);
    let moved = place.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("it is there");
    symlink(&moved, &directory).expect("there is space");
    assert!(is_damaged(files.write_at(&name(&long), 5, b"more")));
    drop(files);
    let mut files = place.open();
    let missing = files.verify(place.views().into_iter()).expect("they can be read");
    assert_eq!(missing.len(), 1);
    let kept = fs::read_dir(&moved).expect("it is there").count();
    assert_eq!(kept, 1, "what is behind the link was left alone");
}
