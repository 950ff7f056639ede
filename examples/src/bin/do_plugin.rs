//! Runs [`goplug_examples::do_plugin`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::do_plugin::run(&goplug_examples::plugin_dir())?)
}
