//! The command line, built for the tests.

fn main() -> std::process::ExitCode {
    goplugctl::main()
}
