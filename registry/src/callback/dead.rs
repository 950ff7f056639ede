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
