//! The program under which plugins run, built for the tests.

fn main() -> std::process::ExitCode {
    goplug_host::main()
}
