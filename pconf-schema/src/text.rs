//! Places in a text as people count them, and words as people misspell them.

/// Line and column of the byte `offset` in `text`, both from 1; a column is a character.
///
/// An offset beyond the end is the end; bytes that are no UTF-8 count one character each.
pub(crate) fn line_and_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// The candidate that `word` is most likely a misspelling of, whatever the case: one to three letters differ, at most a
/// third of the candidate's.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let distances = candidates.iter().map(|candidate| (distance(word, candidate), *candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (candidate.len() / 3).clamp(1, 3)).then_some(candidate)
}

/// How many letters have to be changed, added or left out (Levenshtein); a word of more than 64 characters is like none.
fn distance(word: &str, candidate: &str) -> usize {
    let word: Vec<char> = word.chars().take(65).map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (n, wanted) in candidate.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], n + 1);
        for (at, c) in word.iter().enumerate() {
            let replaced = diagonal + usize::from(*c != wanted.to_ascii_lowercase());
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = "ab\näöx\n".as_bytes();
        for (offset, place) in
            [(0, (1, 1)), (2, (1, 3)), (3, (2, 1)), (5, (2, 2)), (7, (2, 3)), (9, (3, 1)), (99, (3, 1))]
        {
            assert_eq!(line_and_column(text, offset), place, "offset {offset}");
        }
    }

    #[test]
    fn misspelled_words_are_recognised() {
        let words = ["auto_discover", "log", "limits", "Sock"];
        for (word, near) in [
            ("auto-discover", Some("auto_discover")),
            ("autodiscovery", Some("auto_discover")),
            ("LOGS", Some("log")),
            ("socket", None),
            ("sokc", None),
            ("socks", Some("Sock")),
            ("limit", Some("limits")),
            ("", None),
        ] {
            assert_eq!(nearest(word, &words), near, "{word}");
        }
        assert_eq!(nearest("x", &[]), None);
    }
}
