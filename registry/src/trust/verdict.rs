//! What follows from a pin and a program. Pure.

use goplug_pconf_schema::Sha256;
use goplug_pconf_schema::admin::TrustVerdict;

/// `enforced`: programs are pinned, and this plugin starts itself; `pinned`: what it may run, if somebody has said;
/// `seen`: what runs, if it can be told.
pub(crate) fn verdict(enforced: bool, pinned: Option<Sha256>, seen: Option<Sha256>) -> TrustVerdict {
    match (enforced, pinned, seen) {
        (false, ..) => TrustVerdict::NotAsked,
        // What nobody can look at is neither recorded nor believed to be what was recorded.
        (true, _, None) => TrustVerdict::Untold,
        (true, None, Some(_)) => TrustVerdict::First,
        (true, Some(pinned), Some(seen)) if pinned == seen => TrustVerdict::Trusted,
        (true, Some(_), Some(_)) => TrustVerdict::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_pin_and_program_has_its_verdict() {
        let [a, b] = [1, 2].map(|n| Some(Sha256::from([n; 32])));
        use TrustVerdict::{Changed, First, NotAsked, Trusted, Untold};
        for (enforced, pinned, seen, expected) in [
            (false, None, None, NotAsked),
            (false, None, a, NotAsked),
            (false, a, None, NotAsked),
            (false, a, b, NotAsked),
            (false, a, a, NotAsked),
            (true, None, None, Untold),
            (true, a, None, Untold),
            (true, None, a, First),
            (true, a, a, Trusted),
            (true, a, b, Changed),
            (true, b, a, Changed),
        ] {
            assert_eq!(verdict(enforced, pinned, seen), expected, "{enforced} {pinned:?} {seen:?}");
        }
    }
}
