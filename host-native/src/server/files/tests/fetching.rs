//! Bytes from peers.

use super::*;

/// A file of which this node has the first part.
fn place(known: usize, whole: &[u8]) -> (Place, Files) {
    let mut place = Place::new();
    let mut files = place.verified();
    place.append(&mut files, "journal", &whole[..known]);
    files.sync().expect("the disk is fine");
    place.model.insert(name("journal"), whole.to_vec());
    (place, files)
}

fn content(length: u64) -> Vec<u8> {
    (0..length).map(|nth| u8::try_from(nth * 7 % 251).expect("less than 251")).collect()
}

#[test]
fn joins_what_was_missing() {
    let whole = content(1_000_000);
    let (place, mut files) = place(300_000, &whole);
    let missing = place.missing("journal", 300_000);
    let mut at = files.fetch_from(&missing).expect("it can be read");
    assert_eq!(at, 300_000);
    while at < missing.length {
        let start = usize::try_from(at).expect("a small file");
        let end = (start + 65_536).min(whole.len());
        assert!(!files.complete(&missing).expect("it can be read"), "not yet");
        at = files.install(&missing, at, &whole[start..end]).expect("there is space");
        assert_eq!(files.length(&missing.file), Some(300_000), "it does not count yet");
    }
    assert!(files.complete(&missing).expect("there is space"));
    assert!(files.complete(&missing).expect("it is already"), "twice");
    place.check();
    assert!(!place.directory.path().join("fetched").join("journal").exists());
}

#[test]
fn goes_on_after_a_restart() {
    let whole = content(5000);
    let (place, mut files) = place(1000, &whole);
    let missing = place.missing("journal", 1000);
    assert_eq!(files.install(&missing, 1000, &whole[1000..3000]).expect("there is space"), 3000);
    drop(files);
    let mut files = place.open();
    let recorded = FileView {
        file: missing.file.clone(),
        guard: LockName::new("guard").expect("a name"),
        length: 1000,
        checksum: Checksum::of(&whole[..1000]),
    };
    assert_eq!(files.verify([recorded].into_iter()).expect("they can be read"), []);
    assert_eq!(files.fetch_from(&missing).expect("it can be read"), 3000);
    files.install(&missing, 3000, &whole[3000..]).expect("there is space");
    assert!(files.complete(&missing).expect("there is space"));
    place.check();
}

#[test]
fn takes_no_wrong_bytes() {
    let whole = content(5000);
    let (place, mut files) = place(1000, &whole);
    let missing = place.missing("journal", 1000);
    let mut wrong = whole.clone();
    wrong[4000] ^= 1;
    files.install(&missing, 1000, &wrong[1000..]).expect("there is space");
    assert!(!files.complete(&missing).expect("it can be read"));
    assert_eq!(place.on_disk("journal"), &whole[..1000], "no wrong byte was joined");
    assert_eq!(files.fetch_from(&missing).expect("it can be read"), 1000, "all over again");
    files.install(&missing, 1000, &whole[1000..]).expect("there is space");
    assert!(files.complete(&missing).expect("there is space"));
    place.check();
}

/// Ranges that overlap, are repeated, leave a gap, or go too far.
#[test]
fn takes_what_joins() {
    let whole = content(100);
    let (place, mut files) = place(10, &whole);
    let missing = place.missing("journal", 10);
    let mut install = |offset: usize, end: usize| {
        let longer = [whole.clone(), vec![1; 50]].concat();
        files.install(&missing, offset as u64, &longer[offset..end]).expect("there is space")
    };
    assert_eq!(install(20, 30), 10, "a gap");
    assert_eq!(install(0, 10), 10, "known");
    assert_eq!(install(0, 20), 20, "known in part");
    assert_eq!(install(10, 20), 20, "the same again");
    assert_eq!(install(15, 30), 30);
    assert_eq!(install(30, 30), 30, "nothing");
    assert_eq!(install(30, 150), 100, "too many");
    assert!(files.complete(&missing).expect("there is space"));
    place.check();
}

/// While a file is fetched, the log catches up, and its effects go further.
#[test]
fn effects_overtake_what_is_fetched() {
    let whole = content(100);
    let (mut place, mut files) = place(10, &whole);
    let missing = place.missing("journal", 10);
    files.install(&missing, 10, &whole[10..60]).expect("there is space");
    files.write_at(&missing.file, 10, &whole[10..40]).expect("there is space");
    assert_eq!(files.fetch_from(&missing).expect("it can be read"), 60);
    files.install(&missing, 60, &whole[60..80]).expect("there is space");
    files.write_at(&missing.file, 40, &whole[40..]).expect("there is space");
    files.write_at(&missing.file, 100, b"and more").expect("there is space");
    assert_eq!(files.fetch_from(&missing).expect("it can be read"), 100);
    assert_eq!(files.install(&missing, 60, &whole[60..]).expect("nothing to do"), 100);
    assert!(files.complete(&missing).expect("there is space"));
    place.model.entry(name("journal")).or_default().extend_from_slice(b"and more");
    place.check();
    let other = MissingBytes { checksum: Checksum::of(b"other"), ..missing };
    assert!(!files.complete(&other).expect("it can be read"));
    place.check();
}

#[test]
fn an_empty_file_needs_no_bytes() {
    let mut place = Place::new();
    place.model.insert(name("empty"), Vec::new());
    let mut files = place.open();
    let missing = files.verify(place.views().into_iter()).expect("they can be read");
    assert_eq!(missing.len(), 1);
    assert_eq!(files.fetch_from(&missing[0]).expect("it can be read"), 0);
    assert!(files.complete(&missing[0]).expect("there is space"));
    place.check();
    drop(files);
    place.verified();
}

/// What is in `fetched` may be anything.
#[test]
fn rubbish_does_no_harm() {
    let whole = content(100);
    for rubbish in [&b""[..], b"short", &[0xff; 8], &[0; 8], &[0; 200], &[0xff; 200]] {
        let (place, mut files) = place(10, &whole);
        let missing = place.missing("journal", 10);
        let path = place.directory.path().join("fetched").join("journal");
        fs::write(path, rubbish).expect("there is space");
        let mut rounds = 0;
        while !files.complete(&missing).expect("it can be read") {
            let from = usize::try_from(files.fetch_from(&missing).expect("it can be read"));
            let from = from.expect("a small file");
            files.install(&missing, from as u64, &whole[from..]).expect("there is space");
            rounds += 1;
            assert!(rounds < 4, "{rubbish:?}");
        }
        place.check();
    }
}

/// What the log overtook does not stay for ever.
#[test]
fn what_is_of_no_use_is_removed() {
    let whole = content(100);
    let (place, mut files) = place(10, &whole);
    let missing = place.missing("journal", 10);
    files.install(&missing, 10, &whole[10..60]).expect("there is space");
    files.write_at(&missing.file, 10, &whole[10..]).expect("there is space");
    let part = place.directory.path().join("fetched").join("journal");
    assert!(part.exists());
    drop(files);
    place.verified();
    assert!(!part.exists());
}
