//! Runs [`goplug_examples::shout`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::shout::run(&goplug_examples::plugin_dir())?)
}
