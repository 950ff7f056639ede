//! The program that opens shared objects, built for the tests.

fn main() -> std::process::ExitCode {
    goplug_host::shared_object_main()
}
