//! What must hold at the end.

use std::collections::BTreeSet;

use super::workers::{Line, Record};

/// Compares a file with what the clients were told. Returns how many lines it has, and what is wrong.
pub(super) fn journal(bytes: &[u8], record: &Record) -> (usize, Vec<String>) {
    let mut problems = record.problems.clone();
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    // What was acknowledged is where it is said to be.
    for Line { text, offset } in &record.lines {
        let Some(offset) = offset else { continue };
        let start = usize::try_from(*offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(text.len());
        if bytes.get(start..end) != Some(text.as_bytes()) {
            problems.push(format!(
                "{:?} is not at offset {offset}, though it was acknowledged",
                text.trim_end()
            ));
        }
    }
    // Nothing is there twice, and nothing that nobody wrote.
    let written: BTreeSet<&str> = record.lines.iter().map(|line| line.text.as_str()).collect();
    let mut seen = BTreeSet::new();
    for line in &lines {
        if !seen.insert(*line) {
            problems.push(format!("{:?} is there twice", line.trim_end()));
        } else if !written.contains(line) {
            problems.push(format!("{:?} is there, and nobody wrote it", line.trim_end()));
        }
    }
    // One line is written under each token, and every hold has a higher one than those before.
    let tokens: Vec<Option<u64>> = lines.iter().map(|line| token(line)).collect();
    if !tokens.is_sorted_by(|a, b| a.is_some() && a < b) {
        problems.push("the tokens are not strictly increasing".to_owned());
    }
    (lines.len(), problems)
}

fn token(line: &str) -> Option<u64> {
    line.strip_prefix("token ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lines: &[(&str, Option<u64>)]) -> Record {
        let line = |&(text, offset): &(&str, Option<u64>)| Line { text: text.to_owned(), offset };
        Record { lines: lines.iter().map(line).collect(), ..Record::default() }
    }

    const A: &str = "token 3 client 0 cycle 1\n";
    const B: &str = "token 5 client 1 cycle 1\n";

    #[test]
    fn what_was_told_is_there() {
        let told = record(&[(A, Some(0)), (B, Some(25))]);
        assert_eq!(journal(format!("{A}{B}").as_bytes(), &told), (2, Vec::new()));
        // Of one that may be there or not, both is right.
        let told = record(&[(A, Some(0)), (B, None)]);
        assert_eq!(journal(format!("{A}{B}").as_bytes(), &told), (2, Vec::new()));
        assert_eq!(journal(A.as_bytes(), &told), (1, Vec::new()));
    }

    #[test]
    fn everything_else_is_noticed() {
        let told = record(&[(A, Some(0)), (B, Some(25))]);
        for (bytes, problem) in [
            (A.to_owned(), "not at offset 25"),
            (format!("{A}{B}{B}"), "twice"),
            (format!("{A}{B}token 9 client 7 cycle 1\n"), "nobody wrote it"),
            (format!("{B}{A}"), "not strictly increasing"),
            (format!("{A}x{B}"), "nobody wrote it"),
        ] {
            let (_, problems) = journal(bytes.as_bytes(), &told);
            assert!(
                problems.iter().any(|found| found.contains(problem)),
                "{problem}: {problems:?}"
            );
        }
    }
}
