//! `goplug-bench`: measures our subjects, and those of other programs, side by side. `benches/README.md` says how.

mod subjects;

use std::process::ExitCode;

use clap::Parser;
use goplug_benches::{driver, is_program_call, program};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match is_program_call(&args) {
        true => program(&subjects::all(), &args),
        false => driver::run(&driver::Options::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
