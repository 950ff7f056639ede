//! Messages whose handler failed every time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use goplug_pconf_schema::admin::DeadLetter;

/// How many are kept; older ones are forgotten.
const KEPT: usize = 100;

/// The last dead letters of a registry.
#[derive(Debug, Default)]
pub(crate) struct DeadLetters(Mutex<VecDeque<DeadLetter>>);

impl DeadLetters {
    pub(crate) fn push(&self, letter: DeadLetter) {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() == KEPT {
            letters.pop_front();
        }
        letters.push_back(letter);
    }

    pub(crate) fn list(&self) -> Vec<DeadLetter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::PluginId;

    use super::*;

    #[test]
    fn the_last_hundred_are_kept() {
        let letters = DeadLetters::default();
        for n in 0..=KEPT {
            letters.push(DeadLetter {
                plugin: PluginId::new("Test", "Do").unwrap(),
                callback: "news".to_owned(),
                subscription: "s".to_owned(),
                position: None,
                data_base64: String::new(),
                error: n.to_string(),
                time: String::new(),
            });
        }
        let errors: Vec<_> = letters.list().into_iter().map(|letter| letter.error).collect();
        assert_eq!((errors.len(), errors[0].as_str(), errors[99].as_str()), (100, "1", "100"));
    }
}
