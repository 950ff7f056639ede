//! Runs [`goplug_examples::pipe`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::pipe::run(&goplug_examples::plugin_dir())?)
}
