//! The program `goplugctl`; everything is in the library of the same name.

fn main() -> std::process::ExitCode {
    goplugctl::main()
}
