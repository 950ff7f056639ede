//! Runs [`goplug_examples::lazy`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::lazy::run(&goplug_examples::plugin_dir())?)
}
