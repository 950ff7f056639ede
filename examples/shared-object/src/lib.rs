//! A plugin that is a shared object: three labels in one function.
//!
//! `cargo build`, then put `libgreeter.so` as `greeter.so` and `plugin.json` into a folder, and `goplugctl install` it.

use std::error::Error;
use std::time::Duration;

use goplug_shared_object::Context;

goplug_shared_object::execute!(run);

fn run(cx: &Context<'_>) -> Result<(), Box<dyn Error>> {
    match cx.label() {
        "greet" => greet(cx),
        "divide" => divide(cx),
        "wait" => wait(cx),
        other => Err(format!("there is no label `{other}`").into()),
    }
}

/// `name` in, `greeting` out.
fn greet(cx: &Context<'_>) -> Result<(), Box<dyn Error>> {
    let name: String = cx.get_as("name")?;
    cx.set("greeting", format!("hello {name}"))?;
    Ok(())
}

/// Nobody looks whether `by` is 0: then it panics, the caller is told so, and the plugin goes on.
fn divide(cx: &Context<'_>) -> Result<(), Box<dyn Error>> {
    let (number, by): (i64, i64) = (cx.get_as("number")?, cx.get_as("by")?);
    cx.set("quotient", number / by)?;
    Ok(())
}

/// Works until nobody waits any more, and looks now and then.
fn wait(cx: &Context<'_>) -> Result<(), Box<dyn Error>> {
    cx.set("remaining_ms", u64::try_from(cx.remaining().as_millis())?)?;
    let mut rounds = 0_u64;
    while !cx.cancelled_within(Duration::from_millis(100)) {
        rounds += 1;
    }
    println!("wait was cancelled after {rounds} rounds");
    Err("nobody waits".into())
}
