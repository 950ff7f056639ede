//! placeholder
#![allow(missing_docs)]
pub const MAX_PCONF_BYTES: usize = 64 * 1024;
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
pub struct Pconf; pub struct PconfError; pub struct PconfProblem;
