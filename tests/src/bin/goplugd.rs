//! The daemon, built for the tests.

fn main() -> std::process::ExitCode {
    goplugd::main()
}
