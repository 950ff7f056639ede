//! The program `goplug-host`; everything is in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    goplug_host::main()
}
