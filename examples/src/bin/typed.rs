//! Runs [`goplug_examples::typed`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::typed::run(&goplug_examples::plugin_dir())?)
}
