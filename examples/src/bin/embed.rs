//! Runs [`goplug_examples::embed`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::embed::run(&goplug_examples::plugin_dir())?)
}
