//! Which messages of a stream are new. Pure.

use std::collections::HashMap;

use goplug_pconf_schema::wire::event::{Class, MAX_STATE_KEYS, Position};

/// Remembers what was seen, so that what is sent again after a reconnect is handled once.
#[derive(Debug)]
pub(crate) struct Cursor {
    class: Class,
    /// The last message seen, or where an observer begins.
    last: Option<Position>,
    /// Of a `state` callback: the last message of each key. Its values come in any order, so one number is not enough.
    keys: HashMap<Option<String>, u64>,
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    New,
    /// It was seen before.
    Repeated,
    /// The first of another process.
    NewEpoch {
        previous: String,
    },
    /// More keys than a `state` callback may have.
    TooManyKeys,
}

impl Cursor {
    pub(crate) fn new(class: Class, after: Option<Position>) -> Self {
        Self { class, last: after, keys: HashMap::new() }
    }

    /// The last message seen.
    pub(crate) fn last(&self) -> Option<&Position> {
        self.last.as_ref()
    }

    /// What another process says may be of another class.
    pub(crate) fn set_class(&mut self, class: Class) {
        self.class = class;
    }

    /// The process is another one: nothing that it says was seen before.
    pub(crate) fn enter(&mut self, epoch: &str) {
        self.keys.clear();
        self.last = Some(Position { epoch: epoch.to_owned(), seq: 0 });
    }

    /// Notes that the messages up to `to` will not come: new if some of them were neither seen nor told of.
    pub(crate) fn note_gap(&mut self, to: &Position) -> Novelty {
        let previous = self.last.as_ref().filter(|last| last.epoch != to.epoch).map(|last| last.epoch.clone());
        if previous.is_some() {
            self.enter(&to.epoch);
        }
        let last = self.last.get_or_insert_with(|| Position { epoch: to.epoch.clone(), seq: 0 });
        if to.seq <= last.seq {
            return Novelty::Repeated;
        }
        last.seq = to.seq;
        previous.map_or(Novelty::New, |previous| Novelty::NewEpoch { previous })
    }

    /// Notes a message.
    pub(crate) fn note(&mut self, position: &Position, key: Option<&str>) -> Novelty {
        let previous = self.last.as_ref().filter(|last| last.epoch != position.epoch).map(|last| last.epoch.clone());
        if previous.is_some() {
            self.enter(&position.epoch);
        }
        let seen = match (self.class, &self.last) {
            (Class::State, _) => self.keys.get(&key.map(str::to_owned)).copied().unwrap_or(0),
            (_, Some(last)) => last.seq,
            (_, None) => 0,
        };
        if position.seq <= seen {
            return Novelty::Repeated;
        }
        if self.class == Class::State {
            if self.keys.len() >= MAX_STATE_KEYS && !self.keys.contains_key(&key.map(str::to_owned)) {
                return Novelty::TooManyKeys;
            }
            self.keys.insert(key.map(str::to_owned), position.seq);
        }
        let last = self.last.get_or_insert_with(|| position.clone());
        last.seq = last.seq.max(position.seq);
        previous.map_or(Novelty::New, |previous| Novelty::NewEpoch { previous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: char, seq: u64) -> Position {
        Position { epoch: epoch.to_string().repeat(32), seq }
    }

    #[test]
    fn an_event_is_new_once() {
        let mut cursor = Cursor::new(Class::Event, None);
        let new_epoch = Novelty::NewEpoch { previous: "a".repeat(32) };
        for (position, expected) in [
            (at('a', 1), Novelty::New),
            (at('a', 2), Novelty::New),
            (at('a', 1), Novelty::Repeated),
            (at('a', 2), Novelty::Repeated),
            (at('a', 9), Novelty::New),
            (at('b', 1), new_epoch),
            (at('b', 1), Novelty::Repeated),
        ] {
            assert_eq!(cursor.note(&position, None), expected, "{position}");
        }
        assert_eq!(cursor.last(), Some(&at('b', 1)));
    }

    #[test]
    fn the_values_of_a_state_come_in_any_order() {
        let mut cursor = Cursor::new(Class::State, None);
        assert_eq!(cursor.note(&at('a', 5), Some("x")), Novelty::New);
        assert_eq!(cursor.note(&at('a', 3), Some("y")), Novelty::New);
        assert_eq!(cursor.note(&at('a', 5), Some("x")), Novelty::Repeated);
        assert_eq!(cursor.note(&at('a', 6), None), Novelty::New);
        assert_eq!(cursor.last(), Some(&at('a', 6)));
    }

    #[test]
    fn an_observer_begins_after_its_place() {
        let mut cursor = Cursor::new(Class::Event, Some(at('a', 7)));
        assert_eq!(cursor.note(&at('a', 7), None), Novelty::Repeated);
        assert_eq!(cursor.note(&at('a', 8), None), Novelty::New);
    }

    #[test]
    fn a_gap_is_told_once_and_what_lies_in_it_was_seen() {
        let mut cursor = Cursor::new(Class::Event, None);
        let new_epoch = Novelty::NewEpoch { previous: "a".repeat(32) };
        assert_eq!(cursor.note_gap(&at('a', 4)), Novelty::New);
        assert_eq!(cursor.note_gap(&at('a', 4)), Novelty::Repeated);
        assert_eq!(cursor.note(&at('a', 4), None), Novelty::Repeated);
        assert_eq!(cursor.note(&at('a', 5), None), Novelty::New);
        assert_eq!(cursor.note_gap(&at('b', 2)), new_epoch);
        assert_eq!(cursor.note(&at('b', 3), None), Novelty::New);
    }

    #[test]
    fn keys_are_bounded() {
        let mut cursor = Cursor::new(Class::State, None);
        for n in 0..MAX_STATE_KEYS as u64 {
            assert_eq!(cursor.note(&at('a', n + 1), Some(&n.to_string())), Novelty::New);
        }
        assert_eq!(cursor.note(&at('a', 20_000), Some("one more")), Novelty::TooManyKeys);
        assert_eq!(cursor.note(&at('a', 20_001), Some("0")), Novelty::New);
    }
}
