//! Runs [`goplug_examples::do_app`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(goplug_examples::do_app::run(&goplug_examples::plugin_dir())?)
}
