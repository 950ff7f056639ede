//! Other ways to call code outside the application, as subjects of `goplug-bench --with`: each as its own documentation shows it,
//! over a Unix socket, with the limits on message sizes lifted.

mod axum_hyperlocal;
mod tarpc_bincode;
mod tonic_grpc;
mod wasm;
mod zbus_peer;

use std::process::ExitCode;

use goplug_benches::{Runtime, Subject, program};

fn subjects() -> Vec<Box<dyn Subject>> {
    let mut all: Vec<Box<dyn Subject>> = Vec::new();
    for runtime in [Runtime::CurrentThread, Runtime::MultiThread] {
        all.push(Box::new(axum_hyperlocal::AxumHyperlocal { runtime }));
        all.push(Box::new(tonic_grpc::Tonic { runtime }));
        all.push(Box::new(tarpc_bincode::Tarpc { runtime }));
        all.push(Box::new(zbus_peer::Zbus { runtime }));
    }
    all.push(Box::new(wasm::Wasm { fresh: true }));
    all.push(Box::new(wasm::Wasm { fresh: false }));
    all
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match program(&subjects(), &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
