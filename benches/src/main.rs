//! `goplug-bench`: measures our subjects, and those of other programs, side by side. `benches/README.md` says how.

mod fleet;
mod subjects;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use goplug_benches::{driver, is_program_call, program};
use serde::Serialize;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the driver starts this program as, or else the driver.
fn run(args: &[String]) -> Result<()> {
    if is_program_call(args) {
        return program(&subjects::all(), args);
    }
    if let [verb, json] = args {
        match verb.as_str() {
            "scale" => return print(&fleet::scale::host(&serde_json::from_str(json)?)?),
            "rates" => return print(&fleet::rates::host(&serde_json::from_str(json)?)?),
            "fleet" => return fleet::serve(&serde_json::from_str(json)?),
            "daemon" => return subjects::daemon(&serde_json::from_str(json)?),
            _ => {}
        }
    }
    driver::run(&driver::Options::parse())
}

fn print(measured: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}
