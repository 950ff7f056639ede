//! Runs [`goplug_examples::notifier`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::notifier::run(&goplug_examples::plugin_dir())?)
}
