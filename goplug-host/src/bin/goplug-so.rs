//! The program `goplug-so`; everything is in the library `goplug_host`.

use std::process::ExitCode;

fn main() -> ExitCode {
    goplug_host::shared_object_main()
}
