//! Packages as their users meet them: made, opened, unpacked; and as attackers make them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod corpus;
mod evil;
mod mutated;
mod original;
mod raw;
mod roundtrip;
mod signed;
