//! Packages as their users meet them: made, opened, unpacked; and as attackers make them.

#![allow(clippy::unwrap_used)]

mod evil;
mod mutated;
mod raw;
mod roundtrip;
mod signed;
