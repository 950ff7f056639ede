//! Runs the application of [`goplug_examples::interface`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::interface::run_app(&goplug_examples::plugin_dir())?)
}
